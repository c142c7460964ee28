"""Rows 6 and 9: who the child is, whose children it has, and where its sockets go.

Row 6: a child's exit sends SIGTERM to every daemon that ``multiprocessing.process._children``
lists, and fails on ``can only join a child process``. Row 9: what the child puts into the directory
of ``multiprocessing.util.get_temp_dir()`` is gone with the parent, so it makes one of its own; not
the children of ``Process``, which waits for them. Identity: a ``parent_process()`` that was set
named the parent's parent; the child of `forked()` gets a process object, as ``Process`` gives it.
"""

from __future__ import annotations

import os
import time
from itertools import count
from types import ModuleType

from ..._fork_event import ForkEvent, _who
from ..._fork_event._step import NOTHING, Step, expect, kept
from ..._fork_event._typing import Any, Iterator
from ..._fork_event._who import Launch

# A family's module, the parent, and the process object to be known by; None: as it is.
Change = tuple[Any, Any, Any]

_POLL = 0.05  # seconds between two looks at the parent, where there is no pidfd


class ChildrenStep(Step):
    name = "children"
    modules = _who.submodules("process")

    def note(self, fork: ForkEvent) -> Any:
        return None if any(found for _, found in children()) else NOTHING

    def reset(self, fork: ForkEvent, note: None) -> bool:
        strangers = [(process, found) for process, found in children() if found]
        for process, found in strangers:
            kept.append(found)
            process._children = set()  # type: ignore[attr-defined] # its shape was checked
        return bool(strangers)


def children() -> Iterator[tuple[ModuleType, set[object]]]:
    """Yield the modules that list the children of a family, each with its list. Reads only."""
    for process in _who.loaded(ChildrenStep.modules):
        found: Any = getattr(process, "_children", None)
        expect(isinstance(found, set), f"{process.__name__}._children is not a set")
        yield process, found


class IdentityStep(Step):
    name = "identity"
    modules = ("multiprocessing.process", "multiprocess.process")

    def note(self, fork: ForkEvent) -> Any:
        # The objects are made here: in the child that would copy a dozen pages more.
        return _changes(fork) or NOTHING

    def reset(self, fork: ForkEvent, note: list[Change] | None) -> bool:
        changes = _changes(fork) if note is None else note
        for process, parent, identity in changes:
            process._parent_process = _watching(process, parent)
            if identity is not None:
                process._current_process = identity
                process._process_counter = count(1)
        return bool(changes)


def _changes(fork: ForkEvent) -> list[Change]:
    """Return the modules whose idea of this process must change, and to what."""
    changes = []
    for process in _others(fork, IdentityStep.modules):
        current: Any = getattr(process, "_current_process", None)
        known = hasattr(current, "_name") and hasattr(process, "_parent_process")
        expect(known, f"{process.__name__} without _current_process, or _parent_process")
        identity = fork.identity if process.__name__ == "multiprocessing.process" else None
        if identity is not None or process._parent_process is not None:
            pid = fork.parent or os.getppid()
            parent = process._ParentProcess(current._name, pid, None)
            changes.append((process, parent, identity))
    return changes


def _others(fork: ForkEvent, names: tuple[str, ...]) -> Iterator[ModuleType]:
    """Yield these modules but that whose ``Process`` is being started: it knows its child."""
    family = fork.who.family if isinstance(fork.who, Launch) else None
    return (each for each in _who.loaded(names) if each.__name__ != f"{family}.process")


def _watching(process: Any, parent: Any) -> Any:
    """Give `parent`, in its child, a descriptor that turns readable at its end, or do without."""
    try:
        parent._sentinel = os.pidfd_open(parent._pid)
        if os.getppid() == parent._pid:
            return parent
        os.close(parent._sentinel)  # it has ended, and the pidfd may be of another process
    except (AttributeError, OSError):
        pass

    def is_alive(self: Any) -> bool:
        return os.getppid() == int(self._pid)

    def join(self: Any, timeout: float | None = None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        while is_alive(self) and (end is None or time.monotonic() < end):
            time.sleep(_POLL)

    methods = {"is_alive": is_alive, "join": join}
    polled = type("_ParentProcess", (process._ParentProcess,), methods)
    return polled(parent._name, parent._pid, None)


class ScratchDirStep(Step):
    name = "scratch directory"
    modules = _who.submodules("util")  # which makes the directory

    def note(self, fork: ForkEvent) -> Any:
        return None if any("tempdir" in config for config in _configs(fork)) else NOTHING

    def reset(self, fork: ForkEvent, note: None) -> bool:
        had = [config.pop("tempdir", None) for config in _configs(fork)]
        return any(had)


def _configs(fork: ForkEvent) -> Iterator[dict[str, Any]]:
    for module in _others(fork, ChildrenStep.modules):
        config: Any = getattr(getattr(module, "_current_process", None), "_config", None)
        expect(isinstance(config, dict), f"{module.__name__}: no _config")
        yield config
