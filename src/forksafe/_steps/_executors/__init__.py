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
from ..._fork_event._typing import Any, Never
from ..._fork_event._with_bodies import free_lock
from .._mp import registries

_ATTRIBUTES = {"_condition", "_state", "_waiters", "_done_callbacks"}
_ASYNCIOS = ("asyncio.futures", "_chain_future.<locals>._call_set_state")

_PRIORITY = 15  # of the finalizer of every Pool, from 3.9 to 3.15, and of multiprocess and billiard
_LETTING_GO = ("close", "terminate", "join", "_terminate")

# What was the parent's: it has finalizers, which must not run inside the fork.
kept: list[object] = []


def fail(items: list[Any], broken: type[Exception], message: str) -> None:
    """Fail the future of each work item that is not done, by an exception of its own (gh-101267)."""
    kept.append(items)
    mend_each(lambda item: _fail_future(item.future, broken(message)), items)


def _fail_future(future: Any, error: Exception) -> None:
    expect(vars(future).keys() >= _ATTRIBUTES, "a future with other attributes")
    free_lock(future._condition._lock)
    for waiter in future._waiters:
        free_lock(waiter.event._cond._lock)
        if hasattr(waiter, "lock"):
            free_lock(waiter.lock)
    if future._state == "CANCELLED":  # wait() goes by the notice that a worker gives
        future.set_running_or_notify_cancel()
    if future.done():
        return
    callbacks, future._done_callbacks = future._done_callbacks, []
    kept.append(callbacks)
    future.set_exception(error)
    for callback in callbacks:
        # asyncio.wrap_future(): it only schedules a call in the loop of the waiting task.
        names = (getattr(callback, "__module__", None), getattr(callback, "__qualname__", None))
        if names == _ASYNCIOS:
            callback(future)


class PoolsStep(Step):
    name = "pools"
    modules = _who.submodules("pool")

    def note(self, fork: ForkEvent) -> Any:
        return live_pools() or NOTHING

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
    kind, cache = type(pool).__name__, vars(pool).get("_cache")
    known = all(hasattr(pool, name) for name in ("_state", *_LETTING_GO))
    expect(known and isinstance(cache, dict), f"{kind} with other attributes")
    for result in list(vars(pool)["_cache"].values()):
        # Results have an event, iterators a condition of their own.
        where = getattr(result, "_event", result)
        known = hasattr(where, "_items") or hasattr(where, "_flag")
        expect(known and hasattr(where, "_cond"), f"{kind}: results of no kind")


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
    condition = getattr(result, "_event", result)._cond
    free_lock(condition._lock)
    with condition:
        if not hasattr(result, "_event"):
            result._items.append((False, value))
            result._index = result._length = 0  # and after it: the end
        elif not result._event._flag:
            result._success, result._value = False, value
            result._event._flag = True
        condition.notify_all()
