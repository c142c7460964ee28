"""Row 10, first half: an inherited ``Pool`` or ``ThreadPool`` fails at once in the child.

Its threads stay in the parent: ``map()`` waits for ever, and letting go of the pool (``with``,
``terminate()``) sends SIGTERM to the parent's workers. So in the child submitting work raises
``ValueError``, as with a closed pool, and so do results that were due, without their callbacks,
which were made for the parent. Letting go does nothing. Only the child's copy changes.
"""

from __future__ import annotations

import os
import sys

from ..._fork_event import ForkEvent, _who
from ..._fork_event._step import NOTHING, Step, expect
from ..._fork_event._typing import Any, Never
from .._mp import RegistryStep, registries
from . import kept, mend_each, release_waiters

_PRIORITY = 15  # of the finalizer of every Pool, from 3.9 to 3.15, and of multiprocess and billiard
_LETTING_GO = ("close", "terminate", "join", "_terminate")


class PoolsStep(Step):
    name = "pools"
    modules = _who.submodules("pool")

    def note(self, fork: ForkEvent) -> Any:
        for name in RegistryStep.modules:
            if getattr(sys.modules.get(name), "_finalizer_registry", None):
                return live_pools() or NOTHING
        return NOTHING

    def reset(self, fork: ForkEvent, note: list[tuple[Any, int]] | None) -> bool:
        pools = live_pools() if note is None else note
        mend_each(_refuse_work, pools)
        return bool(pools)


def live_pools() -> list[tuple[Any, int]]:
    """Return the pools of this process, each with the pid of the process that owns it.

    Reads only. They are found by their finalizers; that of a pool that was terminated is gone.
    """
    types = tuple(module.Pool for module in _who.loaded(PoolsStep.modules))
    found = []
    for registry in registries():
        for key, finalizer in list(registry.finalizers.items()):
            if key[0] == _PRIORITY:
                reference = getattr(finalizer, "_weakref", None)
                pool = None if reference is None else reference()
                if isinstance(pool, types):
                    found.append((pool, getattr(finalizer, "_pid", os.getpid())))
    return found


class _Refusal(dict):  # type: ignore[type-arg]
    """In place of a pool's cache, where every result registers before its work is queued."""

    message = ""

    def __setitem__(self, key: Any, value: Any) -> Never:
        raise ValueError(self.message)


class _Lost(ValueError):
    """What lost work has for a value, also where billiard has its ``ExceptionInfo``."""

    exception = property(lambda self: self)


def _check(pool: Any) -> None:
    kind, state = type(pool).__name__, vars(pool)
    expect(isinstance(state.get("_cache"), dict), f"{kind} without a cache")
    for name in ("_state", *_LETTING_GO):
        expect(hasattr(pool, name), f"{kind} without {name}")
    for result in list(state["_cache"].values()):
        lock = getattr(_condition(result), "_lock", None)
        expect(hasattr(lock, "_at_fork_reinit"), f"{kind}: a result without a lock")
        where = getattr(result, "_event", result)
        expect(hasattr(where, "_items") or hasattr(where, "_flag"), f"{kind}: results of no kind")


def _condition(result: Any) -> Any:
    # Results have an event, iterators a condition of their own.
    return getattr(getattr(result, "_event", result), "_cond", None)


def _refuse_work(found: tuple[Any, int]) -> None:
    pool, owner = found
    _check(pool)
    message = (
        f"this pool belongs to process {owner}, and its workers answer to that process alone: "
        f"create a pool in this child (process {os.getpid()}) instead"
    )
    state = vars(pool)
    kept.append((state["_cache"], state.get("_terminate")))
    for result in list(state["_cache"].values()):
        _fail(result, _Lost(f"the work of this result is lost: {message}"))
    state["_cache"] = _Refusal()
    state["_cache"].message = message
    state.update(dict.fromkeys(_LETTING_GO, lambda *args, **kwargs: None))
    if hasattr(pool, "_check_running"):  # billiard's has no such method, and goes by its state
        state["_check_running"] = lambda: None  # `with pool:` would raise
        state["_state"] = "CLOSE"  # or the child's exit would warn of an unclosed pool


def _fail(result: Any, value: _Lost) -> None:
    condition = _condition(result)
    condition._lock._at_fork_reinit()
    if not hasattr(result, "_event"):
        result._items.append((False, value))
        result._index = result._length = 0  # and after it: the end
    elif not result._event._flag:
        result._success = False
        result._value = value
        result._event._flag = True
    release_waiters(condition)
