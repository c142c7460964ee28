"""Row 10, first half: an inherited ``Pool`` fails at once; and what it shares with executors.

Whoever waits for a result that nobody works on in the child would wait for ever, so it fails. We
tell those that the standard library itself waits with: ``result()``, ``wait()``, ``as_completed()``
and the asyncio futures chained to it. Other done-callbacks were made for the parent, and may take
locks that a vanished thread holds: they do not run. This is at-fork code: no lock is taken that was
not freed.

The threads of a ``Pool`` or ``ThreadPool`` stay in the parent: ``map()`` waits for ever, and
letting go of the pool (``with``, ``terminate()``) sends SIGTERM to the parent's workers. So in the
child submitting work raises ``ValueError``, as with a closed pool, and so do results that were due.
Letting go does nothing. Only the child's copy changes.
"""

from __future__ import annotations

import os
import sys

from ..._fork_event import ForkEvent, _who
from ..._fork_event._step import NOTHING, Step, expect, mend_each
from ..._fork_event._typing import Any, Callable, Never
from .._mp import RegistryStep, registries

_ATTRIBUTES = {"_condition", "_state", "_exception", "_waiters", "_done_callbacks"}
_ASYNCIOS = ("asyncio.futures", "_chain_future.<locals>._call_set_state")

_PRIORITY = 15  # of the finalizer of every Pool, from 3.9 to 3.15, and of multiprocess and billiard
_LETTING_GO = ("close", "terminate", "join", "_terminate")

# What was the parent's: it has finalizers, which must not run inside the fork.
kept: list[object] = []


def fail(future: Any, error: Callable[[], BaseException]) -> None:
    """Fail a future unless it is done, by an exception of its own (cpython gh-101267)."""
    expect(vars(future).keys() >= _ATTRIBUTES, "a future with other attributes")
    condition = future._condition
    lock: Any = getattr(condition, "_lock", None)
    expect(hasattr(lock, "_at_fork_reinit"), "a future without a lock to start afresh")
    base = sys.modules["concurrent.futures._base"]
    told = ""  # where it is done, a thread that is gone may have been about to tell it
    if future._state in (base.PENDING, base.RUNNING):
        future._exception = error()
        future._state = base.FINISHED
        told = "add_exception"
    elif future._state == base.CANCELLED:  # wait() goes by the notice that a worker gives
        future._state = base.CANCELLED_AND_NOTIFIED
        told = "add_cancelled"
    if not condition._is_owned():  # by a signal handler's victim: this very thread
        lock._at_fork_reinit()
    release_waiters(condition)
    if not told:
        return
    for waiter in list(future._waiters):
        event_lock = getattr(getattr(getattr(waiter, "event", None), "_cond", None), "_lock", None)
        if event_lock is not None and hasattr(waiter, told):
            event_lock._at_fork_reinit()
            if hasattr(waiter, "lock"):
                waiter.lock._at_fork_reinit()
            getattr(waiter, told)(future)
    for callback in list(future._done_callbacks):
        # asyncio.wrap_future(): it only schedules a call in the loop of the waiting task.
        names = (getattr(callback, "__module__", None), getattr(callback, "__qualname__", None))
        if names == _ASYNCIOS:
            callback(future)


def release_waiters(condition: Any) -> None:
    """Wake who waits for a condition, as ``notify_all()``: this thread, under a signal handler."""
    for waiter in list(condition._waiters):
        if waiter.locked():
            waiter.release()
    condition._waiters.clear()


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
        _fail_result(result, _Lost(f"the work of this result is lost: {message}"))
    state["_cache"] = _Refusal()
    state["_cache"].message = message
    state.update(dict.fromkeys(_LETTING_GO, lambda *args, **kwargs: None))
    if hasattr(pool, "_check_running"):  # billiard's has no such method, and goes by its state
        state["_check_running"] = lambda: None  # `with pool:` would raise
        state["_state"] = "CLOSE"  # or the child's exit would warn of an unclosed pool


def _fail_result(result: Any, value: _Lost) -> None:
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
