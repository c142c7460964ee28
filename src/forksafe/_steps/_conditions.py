"""Row 22: a vanished thread waits no more.

``Condition.wait()`` puts a lock of its own into ``_waiters``. The thread is gone in the child, its
lock is still there, and the child's first ``notify()`` wakes nobody: an item that is put into a
``queue.Queue`` is never taken, a ``Semaphore`` is released into the void. ``Event``, ``Barrier``
and whatever a program builds on a Condition, or derives from it, are alike.

So in the child we take all waiters out of every Condition that some other thread was seen to wait
in, but for this thread's own: it may be inside of ``wait()``, if a signal handler forks there. All,
and not just the ones that were seen: until the fork the `before` hooks of other modules run, and
let threads go on. A ``Barrier`` counts who waits, so its count starts anew.
"""

from __future__ import annotations

from .._fork_event._step import NOTHING, Step, expect
from .._fork_event._threads import UNREADABLE, interest, others_can_be_read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._fork_event import ForkEvent

_WAIT = "threading:Condition.wait"
_BARRIER = "threading:Barrier.wait"
interest(_WAIT, variables=("self", "waiter"))
interest(_BARRIER)


class ConditionsStep(Step):
    name = "conditions"

    def note(self, fork: ForkEvent) -> Any:
        return NOTHING  # the look at the stacks tells, if there is another thread

    def reset(self, fork: ForkEvent, note: None) -> bool | str:
        stacks = fork.stacks
        if stacks is None:
            return False
        if not others_can_be_read():
            return UNREADABLE
        mine = [waiter for _, _, waiter in stacks.own.get(_WAIT, ())]
        done = 0
        for _, condition, _ in stacks.others.get(_WAIT, ()):
            waiters = getattr(condition, "_waiters", None)
            expect(hasattr(waiters, "extend"), "threading.Condition without a deque of _waiters")
            assert waiters is not None
            kept = [waiter for waiter in waiters if any(waiter is one for one in mine)]
            done += len(waiters) - len(kept)
            waiters.clear()
            waiters.extend(kept)
        waiting = [barrier for _, barrier in stacks.own.get(_BARRIER, ())]
        for _, barrier in stacks.others.get(_BARRIER, ()):
            expect(
                type(getattr(barrier, "_count", None)) is int
                and type(getattr(barrier, "_state", None)) is int,
                "threading.Barrier without a count and a state",
            )
            barrier._count = sum(one is barrier for one in waiting)
            if barrier._state > 0 and not barrier._count:
                barrier._state = 0  # draining, or resetting, until those who left it have left
        return f"done: {done} taken out" if done else False
