"""Row 10, first half: an inherited ``Pool`` or ``ThreadPool`` fails at once in the child.

A pool is three threads between its workers and whoever asks, and the threads stay in the parent:
in the child ``map()`` waits for ever. Worse, letting go of the pool (``with``, ``terminate()``)
sends SIGTERM to the parent's workers, writes into the pipes of its threads, or fails on ``can only
join a child process``.

So in the child every method that submits work raises ``ValueError``, as a closed pool does, with
the pool's owner and the remedy; and every way of letting go returns at once, with nothing done.
Results that were due from the parent's workers raise the same, so that nobody waits for them.
Their callbacks are the program's, made for the parent, and do not run. The parent's pool is not
touched: all that changes is attributes of the child's copy.

Pools are found through their finalizers: each has one in ``multiprocessing.util``'s registry, with
a weak reference to the pool, and with the pid of the process that made it.
"""

from __future__ import annotations

import os
import sys

from ..._fork_event import _who
from ..._fork_event._step import NOTHING, Step, UnknownLayout, expect
from . import free, release_waiters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ..._fork_event import ForkEvent

_PRIORITY = 15  # of the finalizer of every Pool, from 3.9 to 3.15, and of multiprocess and billiard
_SUBMITTING = (
    "apply",
    "apply_async",
    "map",
    "map_async",
    "starmap",
    "starmap_async",
    "imap",
    "imap_unordered",
)
_LETTING_GO = ("close", "terminate", "join", "_terminate")
# multiprocessing's `with pool:` checks the state on entering, and would raise there.
_CHECKING = "_check_running"
_UTILS = _who.submodules("util")


class PoolsStep(Step):
    name = "pools"
    modules = _who.submodules("pool")

    def __init__(self) -> None:
        # Kept: the queues and the workers are objects with finalizers.
        self._parents: list[object] = []

    def note(self, fork: ForkEvent) -> list[tuple[Any, int]]:
        for name in _UTILS:
            if getattr(sys.modules.get(name), "_finalizer_registry", None):
                return live_pools() or NOTHING
        return NOTHING  # type: ignore[no-any-return] # stands for itself

    def reset(self, fork: ForkEvent, note: list[tuple[Any, int]] | None) -> bool:
        pools = live_pools() if note is None else note
        unknown: UnknownLayout | None = None
        for pool, owner in pools:
            try:
                _check(pool)
            except UnknownLayout as exc:
                unknown = exc  # the others are mended all the same
            else:
                self._parents.append(_refuse_work(pool, owner))
        if unknown is not None:
            raise unknown
        return bool(pools)


def live_pools() -> list[tuple[Any, int]]:
    """Return the pools of this process, each with the pid of the process that owns it.

    Reads only. A pool that was terminated, or refuses work already, is not among them.
    """
    types = tuple(module.Pool for module in _who.loaded(_who.submodules("pool")))
    found: list[tuple[Any, int]] = []
    for registry in _registries():
        for key in list(registry):
            if key[0] == _PRIORITY:
                finalizer = registry.get(key)
                reference = getattr(finalizer, "_weakref", None)
                pool = None if reference is None else reference()
                if isinstance(pool, types):
                    found.append((pool, getattr(finalizer, "_pid", os.getpid())))
    return found


def _registries() -> list[dict[Any, Any]]:
    found: list[dict[Any, Any]] = []
    for util in _who.loaded(_who.submodules("util")):
        registry: Any = getattr(util, "_finalizer_registry", None)
        expect(isinstance(registry, dict), f"{util.__name__}._finalizer_registry is no dict")
        if not any(registry is other for other in found):
            found.append(registry)  # billiard.util has that of multiprocessing.util
    return found


class _Refusal(dict):  # type: ignore[type-arg]
    """In place of a pool's cache, where every result registers before its work is queued."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self._message = message

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise ValueError(self._message)


class _Lost:
    """In place of billiard's ``ExceptionInfo``: what failed work has for a value."""

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception

    def __repr__(self) -> str:  # iterators up to billiard 4.2 raise Exception(this)
        return repr(self.exception)


def _refuse(message: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise ValueError(message)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for what only the process that made the pool may do."""


def _message(owner: int) -> str:
    return (
        f"this pool belongs to process {owner}, and its workers answer to that process alone: "
        f"create a pool in this child (process {os.getpid()}) instead"
    )


def _check(pool: Any) -> None:
    state = vars(pool)
    for attribute in ("_pool", "_cache", "_state", "_terminate"):
        expect(attribute in state, f"{type(pool).__name__} without {attribute}")
    expect(isinstance(state["_cache"], dict), "a pool whose cache is no dict")
    for method in (*_SUBMITTING, *_LETTING_GO):
        expect(hasattr(pool, method), f"{type(pool).__name__} without {method}()")
    for result in list(state["_cache"].values()):
        lock = getattr(_condition(result), "_lock", None)
        expect(hasattr(lock, "_at_fork_reinit"), "a pool's result without a lock")
        event = getattr(result, "_event", None)
        expect(
            hasattr(result, "_items") if event is None else hasattr(event, "_flag"),
            "a pool's result without a place for it",
        )


def _condition(result: Any) -> Any:
    # Results have an event, iterators a condition of their own.
    event = getattr(result, "_event", None)
    return getattr(result, "_cond", None) if event is None else getattr(event, "_cond", None)


def _refuse_work(pool: Any, owner: int) -> object:
    """Make a pool refuse work, in the child; return what it had."""
    message = _message(owner)
    state = vars(pool)
    had = [state["_pool"], state["_cache"], state["_terminate"]]
    wrapped = _is_billiards(pool)
    for result in list(state["_cache"].values()):
        error = ValueError(f"the work of this result is lost: {message}")
        _fail(result, _Lost(error) if wrapped else error)
    refuse = sys.modules["functools"].partial(_refuse, message)
    for method in _SUBMITTING:
        state[method] = refuse
    for method in _LETTING_GO:
        state[method] = _nothing
    if hasattr(pool, _CHECKING):
        state[_CHECKING] = _nothing
    state["_cache"] = _Refusal(message)
    state["_pool"] = []  # none to signal, none to wait for
    state["_state"] = _closed(pool)  # or the child's exit would warn of an unclosed pool
    return had


def _is_billiards(pool: Any) -> bool:
    billiard = sys.modules.get("billiard.pool")
    return billiard is not None and isinstance(pool, billiard.Pool)


def _closed(pool: Any) -> object:
    for cls in type(pool).__mro__:
        if cls.__module__ in _who.submodules("pool"):
            return sys.modules[cls.__module__].CLOSE
    return pool._state


def _fail(result: Any, value: object) -> None:
    condition = _condition(result)
    free(condition._lock)
    if hasattr(result, "_event"):
        if result._event._flag:
            return
        result._success = False
        result._value = value
        result._event._flag = True
    else:
        result._items.append((False, value))
        result._index = result._length = 0  # and after it: the end
    release_waiters(condition)
