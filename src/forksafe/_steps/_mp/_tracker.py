"""Rows 7 and 8: one resource tracker, shared with the parent, and nothing of it inherited but that.

It unlinks shared memory when no process has the write end of its pipe any more. The child keeps
that end: a second tracker, of its own, would unlink what the parent still uses. Since 3.14.10 a
child closes it unless ``_fork_intent.preserve_fd`` is set, as by ``Process`` (cpython gh-146313).
The child keeps neither the lock, which a vanished thread may hold, nor the pid: it cannot wait for
it. Nor does the parent's exit wait for as long as any child lives, of which a `Lifeline` tells.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from ..._fork_event import ForkEvent
from ..._fork_event._step import NOTHING, Step, expect
from ..._fork_event._typing import Any, Callable
from .._temp_dirs import Lifeline

_TRACKERS = {
    "multiprocessing.resource_tracker": "_resource_tracker",
    "multiprocess.resource_tracker": "_resource_tracker",
    "billiard.semaphore_tracker": "_semaphore_tracker",
}

# After the finalizers that join the children: those are ``_run_finalizers()``'s last.
_EXIT_PRIORITY = -1000


def _put_back(intent: Any) -> Callable[[], None]:
    before = getattr(intent, "preserve_fd", False)
    return lambda: setattr(intent, "preserve_fd", before)


class TrackerStep(Step):
    name = "resource tracker"
    modules = tuple(_TRACKERS)

    def __init__(self) -> None:
        self._lifelines: dict[str, Lifeline] = {}

    def note(self, fork: ForkEvent) -> Any:
        needed = False
        for one in trackers():
            if one.intent is not None:
                # It stays set in the child, where the tracker's own hook may run after ours.
                fork.undo += (_put_back(one.intent),)
                one.intent.preserve_fd = needed = True
            if one.state.get("_pid") is not None:
                needed = True
                if hasattr(type(one.tracker), "__del__"):  # which waits
                    self._hold_lifeline(one)
        return None if needed else NOTHING

    def reset(self, fork: ForkEvent, note: None) -> bool:
        done = False
        for one in trackers():
            one.tracker._lock._at_fork_reinit()
            one.state.get("_reentrant_messages", []).clear()  # the parent's to send
            if one.state.get("_pid") is not None:
                one.state["_pid"] = None
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
        known = hasattr(getattr(tracker, "_lock", None), "_at_fork_reinit")
        expect(known and hasattr(tracker, "_fd"), f"{module.__name__}: no lock, or no _fd")
        self.module = module.__name__
        self.tracker = tracker
        self.state = vars(tracker)
        self.intent = getattr(module, "_fork_intent", None)


def trackers() -> list[_Tracker]:
    loaded = [(sys.modules.get(name), attribute) for name, attribute in _TRACKERS.items()]
    return [_Tracker(module, getattr(module, name, None)) for module, name in loaded if module]
