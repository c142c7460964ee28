"""Row 6 and 9: who the child is, whose children it has, and where its sockets go.

Row 6: ``multiprocessing.process._children`` lists what the parent started. A forked child that
exits by the normal way runs ``multiprocessing.util._exit_function``, which sends SIGTERM to every
daemon in that set, and then fails on ``can only join a child process``. So the child's is empty.

Identity: a plain fork keeps `multiprocessing.current_process()`, with one correction. A
``parent_process()`` that was set names the parent's parent after the fork. The child of `forked()`
gets an identity of its own, as ``Process`` gives it.

Row 9, its other half: ``multiprocessing.util.get_temp_dir()`` makes one directory for a process,
remembers it in ``current_process()._config["tempdir"]``, and deletes it when that process exits. A
forked child remembers it too: when the parent has ended (a daemon's has), every forkserver,
``Manager`` and ``Listener`` of the child fails with FileNotFoundError. So the child makes one of
its own on demand. Children of ``Process`` share their parent's by design, and it waits for them.
"""

from __future__ import annotations

import os
import sys
from itertools import count

from ..._fork_event import _who
from ..._fork_event._step import NOTHING, Step, expect
from ..._fork_event._who import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

    from ..._fork_event import ForkEvent

    # A family's module, the parent, and the process object to be known by; None: as it is.
    _Change = tuple[Any, Any, Any]

_POLL = 0.05  # seconds between two looks at the parent, where there is no pidfd


class ChildrenStep(Step):
    name = "children"
    modules = _who.submodules("process")

    def __init__(self) -> None:
        # Kept: dropping the objects here would run their finalizers inside the fork, and write to
        # memory that is still shared with the parent.
        self._strangers: list[set[object]] = []

    def note(self, fork: ForkEvent) -> Any:
        for name in self.modules:
            if getattr(sys.modules.get(name), "_children", None):
                return None
        return NOTHING

    def reset(self, fork: ForkEvent, note: None) -> bool:
        strangers = []
        for process, found in children():
            if found:
                strangers.append(found)
                process._children = set()  # type: ignore[attr-defined] # shape checked above
        if strangers:
            self._strangers = strangers
        return bool(strangers)


def children() -> Iterator[tuple[ModuleType, set[object]]]:
    """Yield the modules that list the children of a family, each with its list. Reads only."""
    for process in _who.loaded(ChildrenStep.modules):
        found = getattr(process, "_children", None)
        expect(isinstance(found, set), f"{process.__name__}._children is not a set")
        assert found is not None
        yield process, found


class IdentityStep(Step):
    name = "identity"
    modules = ("multiprocessing.process", "multiprocess.process")

    def note(self, fork: ForkEvent) -> list[_Change]:
        # The objects are made here: in the child that would copy a dozen pages more.
        if fork.identity is None:
            for name in self.modules:
                if getattr(sys.modules.get(name), "_parent_process", None) is not None:
                    break
            else:
                return NOTHING  # type: ignore[no-any-return] # stands for itself
        return _changes(fork) or NOTHING

    def reset(self, fork: ForkEvent, note: list[_Change] | None) -> bool:
        pid = fork.parent or os.getppid()
        changes = _changes(fork) if note is None else note
        for process, parent, identity in changes:
            process._parent_process = _watching(process, parent, pid)
            if identity is not None:
                process._current_process = identity
                process._process_counter = count(1)
        return bool(changes)


def _changes(fork: ForkEvent) -> list[_Change]:
    """Return the modules whose idea of this process must change, and to what."""
    launcher = _launcher(fork)
    pid = fork.parent or os.getppid()
    changes: list[_Change] = []
    for process in _who.loaded(IdentityStep.modules):
        name = process.__name__
        if name == launcher:
            continue
        current: Any = getattr(process, "_current_process", None)
        expect(hasattr(current, "_name"), f"{name}._current_process has no _name")
        expect(hasattr(process, "_parent_process"), f"{name} has no _parent_process")
        identity = fork.identity if name == "multiprocessing.process" else None
        if identity is not None or process._parent_process is not None:
            parent = process._ParentProcess(current._name, pid, None)
            changes.append((process, parent, identity))
    return changes


def _watching(process: Any, parent: Any, pid: int) -> Any:
    """Give `parent`, in its child, the descriptor that turns readable when it ends."""
    try:
        sentinel = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return _polled(process)(parent._name, pid, None)
    if os.getppid() != pid:  # it ended before the pidfd was open, which may be of another process
        os.close(sentinel)
        return _polled(process)(parent._name, pid, None)
    parent._sentinel = sentinel
    return parent


def _polled(process: Any) -> Any:
    """Return a ``_ParentProcess`` that needs no sentinel, for platforms without pidfds."""

    def is_alive(self: Any) -> bool:
        return os.getppid() == int(self._pid)

    def join(self: Any, timeout: float | None = None) -> None:
        import time

        end = None if timeout is None else time.monotonic() + timeout
        while is_alive(self) and (end is None or time.monotonic() < end):
            time.sleep(_POLL)

    return type(
        "_ParentProcess",
        (process._ParentProcess,),
        {"is_alive": is_alive, "join": join},
    )


def _launcher(fork: ForkEvent) -> str | None:
    """Return the module whose ``Process`` is being started: it knows who its child is."""
    return f"{fork.who.family}.process" if isinstance(fork.who, Launch) else None


class ScratchDirStep(Step):
    name = "scratch directory"
    modules = _who.submodules("util")  # which makes the directory

    def note(self, fork: ForkEvent) -> Any:
        for name in ChildrenStep.modules:
            current = getattr(sys.modules.get(name), "_current_process", None)
            if current is not None and current._config.get("tempdir"):
                return None
        return NOTHING

    def reset(self, fork: ForkEvent, note: None) -> bool:
        done = False
        for config in _configs(fork):
            done = config.pop("tempdir", None) is not None or done
        return done


def _configs(fork: ForkEvent) -> list[dict[str, Any]]:
    launcher = _launcher(fork)
    configs: list[dict[str, Any]] = []
    for module in _who.loaded(ChildrenStep.modules):
        if module.__name__ != launcher:
            config = getattr(getattr(module, "_current_process", None), "_config", None)
            expect(isinstance(config, dict), f"{module.__name__}: no _config")
            assert config is not None
            configs.append(config)
    return configs
