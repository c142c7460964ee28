"""Rows 7 and 8: one resource tracker, shared with the parent, and nothing of it inherited but that.

The tracker is a process that unlinks shared memory and semaphores when the last process that has
the write end of its pipe is gone. The child keeps that write end. A second tracker, which the child
would start without it, would unlink at the child's exit what the parent still uses; since 3.14.10
a bare fork closes it, unless ``_fork_intent.preserve_fd`` is set as ``Process`` sets it
(cpython gh-146313). The child keeps neither the lock, which a thread that is gone may hold, nor
the tracker's pid, which it cannot wait for.

One thing remains for the parent. Where the tracker is waited for at the parent's exit, the wait
would last as long as any child lives. A pipe that is inherited just as the tracker's is tells at
that moment whether any does; if so, the tracker is left to end by itself.
"""

from __future__ import annotations

import os
import sys

from ..._fork_event._step import NOTHING, Step, expect
from .._temp_dirs import Lifeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from ..._fork_event import ForkEvent

_TRACKERS = {
    "multiprocessing.resource_tracker": "_resource_tracker",
    "multiprocess.resource_tracker": "_resource_tracker",
    "billiard.semaphore_tracker": "_semaphore_tracker",
}

_SHARED_MEMORY = (
    "multiprocessing.shared_memory:SharedMemory",
    "multiprocess.shared_memory:SharedMemory",
)

# After the finalizers that join the children: those are ``_run_finalizers()``'s last.
_EXIT_PRIORITY = -1000


class _Preserve:
    """A ``preserve_fd`` that is true in one fork's child, and in no later one.

    The tracker's own hook may run before ours or after it, so the flag must outlast our part.
    """

    def __init__(self, intent: Any) -> None:
        self.intent = intent
        self.previous = getattr(intent, "preserve_fd", False)
        self.parent = os.getpid()
        self.child = 0

    def take_back(self) -> None:
        """Set in the parent what was there before."""
        self.intent.preserve_fd = self.previous

    def __bool__(self) -> bool:
        pid = os.getpid()
        if not self.child and pid != self.parent:
            self.child = pid
        return pid == self.child


class TrackerStep(Step):
    name = "resource tracker"
    modules = tuple(_TRACKERS)

    def __init__(self) -> None:
        self._lifelines: dict[str, Lifeline] = {}

    def note(self, fork: ForkEvent) -> list[_Preserve]:
        for name, attribute in _TRACKERS.items():
            module = sys.modules.get(name)
            tracker = getattr(module, attribute, None)
            if hasattr(module, "_fork_intent") or getattr(tracker, "_pid", None) is not None:
                break
        else:
            return NOTHING  # type: ignore[no-any-return] # stands for itself
        kept = []
        for one in trackers():
            if one.intent is not None:
                preserve = _Preserve(one.intent)
                fork.undo += (preserve.take_back,)
                one.intent.preserve_fd = preserve
                kept.append(preserve)
            if one.is_waited_for and one.tracker._pid is not None:
                self._hold_lifeline(one)
        return kept

    def reset(self, fork: ForkEvent, note: list[_Preserve] | None) -> bool:
        for preserve in note or ():
            preserve.child = os.getpid()
            preserve.previous = False  # or forks of forks would string them all together
        for lifeline in self._lifelines.values():
            lifeline.drop_read_end()
        done = False
        for one in trackers():
            one.reinit_lock()
            state = one.state
            if state.get("_reentrant_messages"):
                state["_reentrant_messages"].clear()  # the parent's to send
            if state.get("_pid") is not None:
                state["_pid"] = None
                done = True
        return done

    def _hold_lifeline(self, one: _Tracker) -> None:
        held = self._lifelines.get(one.module)
        if held is None or held.owner != os.getpid():
            try:
                lifeline = self._lifelines[one.module] = Lifeline()
            except OSError:
                return  # no descriptor left: the parent waits as it does without us
            util: Any = sys.modules[one.module.partition(".")[0] + ".util"]
            util.Finalize(None, _at_exit, (lifeline, one.tracker), exitpriority=_EXIT_PRIORITY)


def _at_exit(lifeline: Lifeline, tracker: Any) -> None:
    if lifeline.is_last() is False:
        tracker._pid = None  # a child lives: do not wait for it


class _Tracker:
    """One tracker's object, of the shape that was checked."""

    def __init__(self, module: ModuleType, tracker: Any) -> None:
        name = module.__name__
        lock = getattr(tracker, "_lock", None)
        expect(hasattr(lock, "_at_fork_reinit"), f"{name}: no lock to start afresh")
        expect(hasattr(tracker, "_fd"), f"{name}: no _fd")
        assert lock is not None
        self.module = name
        self.tracker = tracker
        self.state = vars(tracker)
        self.reinit_lock = lock._at_fork_reinit
        self.intent = getattr(module, "_fork_intent", None)
        self.is_waited_for = hasattr(type(tracker), "__del__") and hasattr(tracker, "_pid")


def trackers() -> list[_Tracker]:
    found = []
    for name, attribute in _TRACKERS.items():
        module = sys.modules.get(name)
        if module is not None:
            tracker = getattr(module, attribute, None)
            expect(tracker is not None, f"{name} has no {attribute}")
            found.append(_Tracker(module, tracker))
    return found
