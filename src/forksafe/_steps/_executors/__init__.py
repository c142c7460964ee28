"""What pools and executors have in common: results that nobody works on in the child.

Whoever waits for one would wait for ever, so it fails. We tell those that the standard library
itself waits with: ``result()``, ``wait()``, ``as_completed()`` and the asyncio futures chained to
it. Other done-callbacks were made for the parent, and may take locks that a vanished thread holds:
they do not run. All of this is at-fork code: no lock is taken that was not freed.
"""

from __future__ import annotations

import sys

from ..._fork_event._step import UnknownLayout, expect
from ..._fork_event._typing import Any, Callable, Iterable

_ATTRIBUTES = {"_condition", "_state", "_exception", "_waiters", "_done_callbacks"}
_ASYNCIOS = ("asyncio.futures", "_chain_future.<locals>._call_set_state")

# What was the parent's: it has finalizers, which must not run inside the fork.
kept: list[object] = []


def mend_each(mend: Callable[[Any], object], things: Iterable[Any]) -> None:
    """Mend each thing, also behind one whose layout is unknown: that is raised in the end."""
    unknown: UnknownLayout | None = None
    for thing in things:
        try:
            mend(thing)
        except UnknownLayout as exc:
            unknown = exc
    if unknown is not None:
        raise unknown


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
