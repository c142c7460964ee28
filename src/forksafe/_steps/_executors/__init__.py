"""Row 10, first half: an inherited ``Pool`` fails at once; and how a future of lost work does.

The threads of a ``Pool`` or ``ThreadPool`` stay in the parent: ``map()`` waits for ever, and
letting go of the pool (``with``, ``terminate()``) sends SIGTERM to the parent's workers. So in the
child submitting work raises ``ValueError``, as with a closed pool, and so do results that were due.
Letting go does nothing.
"""

from __future__ import annotations

import os

from ..._fork_event import ForkEvent, _who
from ..._fork_event._step import NOTHING, Step, expect, kept, mend_each
from ..._fork_event._typing import Any, Never
from ..._fork_event._with_bodies import free_lock
from .._mp import registries

_ATTRIBUTES = {"_condition", "_state", "_waiters", "_done_callbacks"}
_ASYNCIOS = "_chain_future.<locals>._call_set_state"

_PRIORITY = 15  # of the finalizer of every Pool, from 3.9 to 3.15, and of multiprocess and billiard
_LETTING_GO = ("close", "terminate", "join", "_terminate")


def fail(items: list[Any], broken: type[Exception], message: str) -> None:
    """Fail the futures of work that nobody does in this process."""
    kept.append(items)
    # Each by an exception of its own (cpython gh-101267).
    mend_each(lambda item: _fail_future(item.future, broken(message)), items)


def _fail_future(future: Any, error: Exception) -> None:
    expect(vars(future).keys() >= _ATTRIBUTES, "a future with other attributes")
    free_lock(future._condition._lock)
    for waiter in future._waiters:  # of wait() and as_completed()
        free_lock(waiter.event._cond._lock)
        if hasattr(waiter, "lock"):
            free_lock(waiter.lock)
    if future._state == "CANCELLED":  # wait() goes by the notice that a worker gives
        future.set_running_or_notify_cancel()
    if not future.done():
        callbacks, future._done_callbacks = future._done_callbacks, []
        kept.append(callbacks)
        future.set_exception(error)
        # The program's callbacks were made for the parent, and may take locks that a vanished
        # thread holds. asyncio's only schedules a call in the loop of the task that waits.
        for callback in callbacks:
            if getattr(callback, "__qualname__", None) == _ASYNCIOS:
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
        for (priority, _), finalizer in list(registry.finalizers.items()):
            reference = getattr(finalizer, "_weakref", None)
            if priority == _PRIORITY and reference and isinstance(pool := reference(), types):
                found.append((pool, finalizer._pid))
    return found


class _Refusal(dict[Any, Any]):
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
