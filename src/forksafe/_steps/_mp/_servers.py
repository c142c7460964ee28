"""Rows 7 to 9: the two helper processes of multiprocessing.

The resource tracker is shared: a second one, of the child's, would unlink shared memory that the
parent still uses. Since 3.14.10 a child closes the write end of its pipe unless
``_fork_intent.preserve_fd`` is set, as by ``Process`` (cpython gh-146313). The child keeps neither
the lock, which a vanished thread may hold, nor the pid: it cannot wait for it. Nor does the
parent's exit wait for as long as any child lives, of which a `Lifeline` tells.

The forkserver is the parent's; the child starts one of its own on demand. ``ensure_running()``
would wait for the parent's, which is no child of the forked child's: ChildProcessError. A server
ends when nobody holds the write end of its "alive" pipe any more, so the child closes its copy. The
server itself, which forks as well, keeps its address, for it has neither pid nor pipe; and
``_inherited_fds``, which stay descriptors.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from ..._fork_event import ForkEvent, _who
from ..._fork_event._step import NOTHING, Step, expect
from ..._fork_event._typing import Any, Callable, Iterator
from .._temp_dirs import Lifeline

_TRACKERS = {
    "multiprocessing.resource_tracker": "_resource_tracker",
    "multiprocess.resource_tracker": "_resource_tracker",
    "billiard.semaphore_tracker": "_semaphore_tracker",
}
# After the finalizers that join the children: those are ``_run_finalizers()``'s last.
_EXIT_PRIORITY = -1000
# billiard has no _forkserver_pid, _forkserver_authkey is of 3.14 (gh-97514).
_FORGOTTEN = {f"_forkserver_{name}" for name in ("alive_fd", "pid", "address", "authkey")}


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


def _put_back(intent: Any) -> Callable[[], None]:
    before = getattr(intent, "preserve_fd", False)
    return lambda: setattr(intent, "preserve_fd", before)


def _at_exit(lifeline: Lifeline, tracker: Any) -> None:
    if lifeline.is_last() is False:
        tracker._pid = None  # a child lives: do not wait for it


class _Tracker:
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


class ForkServerStep(Step):
    name = "forkserver"
    modules = _who.submodules("forkserver")

    def reset(self, fork: ForkEvent, note: None) -> bool:
        done = False
        for _module, server in _fork_servers():
            if server._lock.locked():  # a thread that is gone was just starting a server
                server._lock._at_fork_reinit()
                done = True
            alive_fd, state = server._forkserver_alive_fd, vars(server)
            if alive_fd is None and state.get("_forkserver_pid") is None:
                continue
            state.update(dict.fromkeys(state.keys() & _FORGOTTEN))
            done = True
            if alive_fd is not None:
                try:
                    os.close(alive_fd)
                except OSError:
                    pass  # a daemon closes all it has
        return done


def _fork_servers() -> Iterator[tuple[ModuleType, Any]]:
    for module in _who.loaded(ForkServerStep.modules):
        server = getattr(module, "_forkserver", None)
        lock = getattr(server, "_lock", None)
        known = hasattr(lock, "_at_fork_reinit") and hasattr(server, "_forkserver_alive_fd")
        expect(known, f"{module.__name__}: no lock to start afresh, or no pipe")
        yield module, server
