"""Rows 6 to 9: the processes that multiprocessing knows of: this one, its children, two helpers.

A child's exit sends SIGTERM to every daemon that ``multiprocessing.process._children`` lists, and
fails with ``can only join a child process``, so we empty that list. The ``parent_process()``
that it inherits is the parent's parent. The child of `forked()` gets a process object of its own.

A resource tracker of the child's own would unlink shared memory that the parent still uses. Since
3.13.14 and 3.14.5 a child closes its end of the tracker's pipe unless ``_fork_intent.preserve_fd``
is set (cpython gh-146313). The parent's exit does not wait for the tracker while a `Lifeline` tells
of a child. The parent's forkserver ends when nobody holds its "alive" pipe any more: the child
closes its copy, and starts a forkserver of its own on demand. The directory of ``get_temp_dir()``
ends with the parent, so the child makes its own; not that of ``Process``, whose parent waits.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import count
from types import ModuleType

from ..._fork_event import KEPT, NOTHING, ForkEvent, Step, UnknownLayout, _who, expect
from ..._fork_event._typing import Any, Iterator
from ..._fork_event._with_bodies import free_lock
from .._temp_dirs import AFTER_THE_CHILDREN, Lifeline

_TRACKERS = {
    "multiprocessing.resource_tracker": "_resource_tracker",
    "multiprocess.resource_tracker": "_resource_tracker",
    "billiard.semaphore_tracker": "_semaphore_tracker",
}
# billiard has no _forkserver_pid, _forkserver_authkey is of 3.14 (gh-97514).
_FORGOTTEN = {f"_forkserver_{name}" for name in ("alive_fd", "pid", "address", "authkey")}


class ChildrenStep(Step):
    name = "children"
    modules = _who.submodules("process")
    looks = _who.paths("process", "_children")

    def reset(self, fork: ForkEvent, note: None) -> bool:
        strangers = [(process, found) for process, found in children() if found]
        for process, found in strangers:
            KEPT.append(found)
            process._children = set()  # type: ignore[attr-defined] # its shape was checked
        return bool(strangers)


def children() -> Iterator[tuple[ModuleType, set[object]]]:
    """Yield the modules that list the children of a family, each with its set. Reads only."""
    for process in _who.loaded(ChildrenStep.modules):
        found: Any = getattr(process, "_children", None)
        expect(isinstance(found, set), f"{process.__name__}._children is not a set")
        yield process, found


class IdentityStep(Step):
    name = "identity"
    modules = ("multiprocessing.process", "multiprocess.process")
    looks = (":identity", *(f"{module}:_parent_process" for module in modules))

    def note(self, fork: ForkEvent) -> Any:
        # The objects are made here: to make them in the child would copy a dozen pages more.
        return _changes(fork) or NOTHING

    def reset(self, fork: ForkEvent, note: list[Any] | None) -> bool:
        changes = _changes(fork) if note is None else note
        for process, parent, identity, counter in changes:
            _watch(parent)
            process._parent_process = parent
            if identity is not None:
                KEPT.append((process._current_process, process._process_counter))
                process._current_process, process._process_counter = identity, counter
        return bool(changes)


def _changes(fork: ForkEvent) -> list[tuple[Any, Any, Any, Any]]:
    """Return the modules that must change: each with the parent, and with the child or None."""
    changes = []
    for process in _others(fork, IdentityStep.modules):
        current: Any = getattr(process, "_current_process", None)
        if not (hasattr(current, "_name") and hasattr(process, "_parent_process")):
            raise UnknownLayout(f"{process.__name__} without _current_process, or _parent_process")
        identity = fork.identity if process.__name__ == "multiprocessing.process" else None
        if identity is not None or process._parent_process is not None:
            pid = fork.parent or os.getppid()
            parent = process._ParentProcess(current._name, pid, None)
            changes.append((process, parent, identity, count(1)))
    return changes


def _others(fork: ForkEvent, names: tuple[str, ...]) -> list[ModuleType]:
    """Return these modules without the one whose ``Process`` starts: that one does it itself."""
    modules = _who.loaded(names)
    if fork.launch is None:
        return modules
    return [each for each in modules if each.__name__ != f"{fork.launch.family}.process"]


def _watch(parent: Any) -> None:
    """Give `parent`, in its child, a sentinel that turns readable at its end; or do without."""
    try:
        parent._sentinel = os.pidfd_open(parent._pid)
        if os.getppid() == parent._pid:
            return
        os.close(parent._sentinel)  # the parent has ended: another process may have its pid
        parent._sentinel = None
    except (AttributeError, OSError):
        pass

    def is_alive() -> bool:
        return bool(os.getppid() == parent._pid)

    def join(timeout: float | None = None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        while is_alive() and (end is None or time.monotonic() < end):
            time.sleep(0.05)

    parent.is_alive, parent.join = is_alive, join


class ScratchDirStep(Step):
    name = "scratch directory"
    modules = _who.submodules("util")  # they make the directory
    looks = _who.paths("process", "_current_process._config:tempdir")

    def reset(self, fork: ForkEvent, note: None) -> bool:
        had = False
        for module in _others(fork, ChildrenStep.modules):
            config: Any = getattr(getattr(module, "_current_process", None), "_config", None)
            expect(isinstance(config, dict), f"{module.__name__}: no _config")
            had = config.pop("tempdir", None) is not None or had
        return had


class TrackerStep(Step):
    name = "resource tracker"
    modules = tuple(_TRACKERS)
    looks = tuple(
        f"{module}:{where}"
        for module, tracker in _TRACKERS.items()
        for where in (f"{tracker}._pid", "__dict__:_fork_intent")
    )

    def __init__(self) -> None:
        self._held: set[tuple[str, int]] = set()  # tracker and pid of each lifeline

    def note(self, fork: ForkEvent) -> None:
        for name, tracker, intent in _trackers():
            if intent is not None:
                # In the child it stays set, since the tracker's own hook may run after ours there.
                put_back: Any = lambda local=intent: setattr(local, "preserve_fd", False)  # noqa: E731
                fork.undo += (put_back,)
                intent.preserve_fd = True
            if getattr(tracker, "_pid", None) is not None:
                key = name, os.getpid()
                if key not in self._held and hasattr(type(tracker), "__del__"):  # it waits
                    util: Any = sys.modules[name.partition(".")[0] + ".util"]
                    mine = Lifeline(), tracker
                    util.Finalize(None, _at_exit, mine, exitpriority=AFTER_THE_CHILDREN)
                    self._held.add(key)

    def reset(self, fork: ForkEvent, note: None) -> bool:
        done = False
        for _, tracker, _ in _trackers():
            tracker._lock._at_fork_reinit()
            getattr(tracker, "_reentrant_messages", []).clear()  # the parent's to send
            if getattr(tracker, "_pid", None) is not None:
                tracker._pid = None
                done = True
        return done


def _at_exit(lifeline: Lifeline, tracker: Any) -> None:
    if lifeline.is_last() is False:
        tracker._pid = None  # a child lives: do not wait for it


def _trackers() -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each module with a tracker, the tracker, its ``_fork_intent`` or None."""
    for name, attribute in _TRACKERS.items():
        if module := sys.modules.get(name):
            tracker = getattr(module, attribute, None)
            known = hasattr(getattr(tracker, "_lock", None), "_at_fork_reinit")
            expect(known and hasattr(tracker, "_fd"), f"{name}: no lock, or no _fd")
            yield name, tracker, getattr(module, "_fork_intent", None)


class ForkServerStep(Step):
    name = "forkserver"
    modules = _who.submodules("forkserver")
    looks = _who.paths("forkserver", "__name__")

    def reset(self, fork: ForkEvent, note: None) -> bool:
        done = False
        for module in _who.loaded(self.modules):
            server: Any = getattr(module, "_forkserver", None)
            known = hasattr(getattr(server, "_lock", None), "_at_fork_reinit")
            known = known and hasattr(server, "_forkserver_alive_fd")
            expect(known, f"{module.__name__}: no lock to start afresh, or no pipe")
            done |= free_lock(server._lock)  # a thread that is gone was just starting a server
            if server._forkserver_alive_fd is not None:
                try:
                    os.close(server._forkserver_alive_fd)
                except OSError:
                    pass  # a daemon closes all it has
                vars(server).update(dict.fromkeys(vars(server).keys() & _FORGOTTEN))
                done = True
        return done
