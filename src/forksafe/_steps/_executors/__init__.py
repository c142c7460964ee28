"""Futures that nobody works on any more, because their workers stayed in the parent.

Whoever waits for one in the child would wait for ever, so it fails. What is told of the failure is
what the standard library itself waits with: ``result()``, ``wait()``, ``as_completed()`` and the
asyncio futures chained to it. Other done-callbacks are the program's, made for the parent, and may
take locks that a vanished thread holds: they are not run.

All of this is at-fork code, for the only thread there is: no lock is taken that was not freed.
"""

from __future__ import annotations

import sys

from ..._fork_event._step import expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ATTRIBUTES = ("_condition", "_state", "_exception", "_waiters", "_done_callbacks")


def check(future: Any) -> Any:
    """Return `future` if it looks as ``concurrent.futures.Future`` does from 3.9 to 3.15.

    Raises:
        UnknownLayout: It does not.
    """
    for attribute in _ATTRIBUTES:
        expect(hasattr(future, attribute), f"a future without {attribute}")
    condition = future._condition
    expect(
        hasattr(condition, "_is_owned")
        and hasattr(condition, "_waiters")
        and hasattr(getattr(condition, "_lock", None), "_at_fork_reinit"),
        "a future whose condition has no lock to start afresh",
    )
    return future


def fail(future: Any, error: Callable[[], BaseException]) -> None:
    """Fail a future, in the child, unless it is done.

    Args:
        future: One that `check` accepted.
        error: Makes the exception; each future has one of its own (cpython gh-101267).
    """
    base = sys.modules["concurrent.futures._base"]
    state = future._state
    if state in (base.PENDING, base.RUNNING):
        future._exception = error()
        future._state = base.FINISHED
        told = "add_exception"
    elif state == base.CANCELLED:  # wait() goes by the notice that a worker gives
        future._state = base.CANCELLED_AND_NOTIFIED
        told = "add_cancelled"
    else:
        told = ""  # done, but a thread that is gone may have been about to tell it
    condition = future._condition
    if not condition._is_owned():  # by a signal handler's victim: this very thread
        condition._lock._at_fork_reinit()
    release_waiters(condition)
    if not told:
        return
    for waiter in list(future._waiters):
        _tell(waiter, told, future)
    for callback in list(future._done_callbacks):
        if _is_asyncios(callback):
            callback(future)


def free(lock: Any) -> None:
    """Release a plain lock that a vanished thread holds."""
    if lock.locked():
        lock._at_fork_reinit()


def release_waiters(condition: Any) -> None:
    """Wake who waits for a condition, as ``notify_all()``: this thread, under a signal handler."""
    for waiter in list(condition._waiters):
        if waiter.locked():
            waiter.release()
    condition._waiters.clear()


def _tell(waiter: Any, how: str, future: Any) -> None:
    event = getattr(waiter, "event", None)
    condition = getattr(event, "_cond", None)
    if condition is None or not hasattr(waiter, how):
        return  # no waiter of concurrent.futures
    free(condition._lock)
    lock = getattr(waiter, "lock", None)
    if lock is not None:
        free(lock)
    getattr(waiter, how)(future)


def _is_asyncios(callback: Any) -> bool:
    # asyncio.wrap_future(): it only schedules a call in the loop of the waiting task.
    return (
        getattr(callback, "__module__", None) == "asyncio.futures"
        and getattr(callback, "__qualname__", None) == "_chain_future.<locals>._call_set_state"
    )
