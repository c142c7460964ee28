"""Row 22: a vanished thread waits no more.

``Condition.wait()`` puts a lock of its own into ``_waiters``. The thread is gone in the child, its
lock is still there, and the child's first ``notify()`` wakes nobody: an item that is put into a
``queue.Queue`` is never taken, a ``Semaphore`` is released into the void. ``Event``, ``Barrier``
and whatever a program builds on a Condition, or derives from it, are alike.

Nothing lists the Conditions of a process. To take out the waiters that were seen on the stacks of
other threads was tried: until the fork the `before` hooks of other modules run, and let threads go
on, so that some percent of the children lost a wakeup beside busy threads. So in a child
``_waiters`` is a property, and when a Condition is first used there, under its own lock, whoever
waits in it has vanished. An access costs about 0.1 microseconds more; the parent's Conditions are
left as they are. This thread's own waiters stay: it may be inside of ``wait()``, if a signal
handler forks there.

A ``Barrier`` also counts who waits: the count of one that other threads were seen in starts anew.
"""

from __future__ import annotations

import sys
from collections import deque

from .._fork_event._step import NOTHING, Step, expect
from .._fork_event._threads import interest, own_stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._fork_event import ForkEvent

_MARK = "_forksafe_process"
_WAIT = "threading:Condition.wait"
_BARRIER = "threading:Barrier.wait"
interest(_WAIT, variables=("self", "waiter"))
interest(_BARRIER)

# Replaced by every reset beside other threads; a Condition that bears it is of this process.
_now: object = None


class ConditionsStep(Step):
    name = "conditions"

    def note(self, fork: ForkEvent) -> Any:
        return NOTHING if fork.alone else None

    def reset(self, fork: ForkEvent, note: None) -> bool:
        global _now
        if fork.alone:
            return False
        cls = _condition_class()
        plain = vars(cls).get("_waiters")
        expect(plain in (None, _waiters), "threading.Condition._waiters is no plain attribute")
        _now = object()
        own = own_stack() if fork.stacks is None else fork.stacks.own
        for _, condition, waiter in own.get(_WAIT, ()):
            _take_out(vars(condition), waiter)
        if plain is None:
            cls._waiters = _waiters
        if fork.stacks is not None:
            waiting = [barrier for _, barrier in own.get(_BARRIER, ())]
            for _, barrier in fork.stacks.others.get(_BARRIER, ()):
                _count_again(barrier, waiting)
        return True

    def leave(self) -> None:
        cls = _condition_class()
        if vars(cls).get("_waiters") is _waiters:
            del cls._waiters


def _condition_class() -> Any:
    return sys.modules["threading"].Condition


def _take_out(state: dict[str, Any], own: object = None) -> None:
    """Take the waiters of vanished threads out, and leave this thread's `own` where it is."""
    state[_MARK] = _now
    waiters = state.get("_waiters")
    if type(waiters) is deque and waiters:
        keep = own in waiters
        waiters.clear()
        if keep:
            waiters.append(own)


def _get(condition: Any) -> Any:
    state = condition.__dict__
    if state.get(_MARK) is not _now:
        _take_out(state)
    try:
        return state["_waiters"]
    except KeyError:
        raise AttributeError("_waiters") from None


def _set(condition: Any, waiters: Any) -> None:
    state = condition.__dict__
    state[_MARK] = _now
    state["_waiters"] = waiters


_waiters = property(_get, _set)


def _count_again(barrier: Any, waiting: list[Any]) -> None:
    expect(
        type(getattr(barrier, "_count", None)) is int
        and type(getattr(barrier, "_state", None)) is int,
        "threading.Barrier without a count and a state",
    )
    barrier._count = sum(one is barrier for one in waiting)
    if barrier._state > 0 and not barrier._count:
        barrier._state = 0  # draining, or resetting, until those who left it have left
