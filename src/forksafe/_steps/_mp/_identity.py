"""Who the child is: `multiprocessing.current_process()` and `multiprocessing.parent_process()`.

A plain fork keeps the identity, with one correction: a ``parent_process()`` that was set names
the parent's parent after the fork. The child of `forked()` gets an identity of its own, as
``Process`` gives it.
"""

from __future__ import annotations

import os
from itertools import count

from ..._fork_event import _families
from ..._fork_event._step import Idle, Step, expect
from ..._fork_event._who import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..._fork_event import Forking

    # A family's module, the parent, and the process object to be known by; None: as it is.
    _Change = tuple[Any, Any, Any]

_POLL = 0.05  # seconds between two looks at the parent, where there is no pidfd


class IdentityStep(Step):
    name = "identity"
    modules = ("multiprocessing.process", "multiprocess.process")

    def __init__(self) -> None:
        self._processes: list[Any] = []

    def note(self, fork: Forking) -> Idle | list[_Change]:
        if fork.fresh:
            self._processes = list(_families.loaded(self.modules))
        # The objects are made here: in the child that would copy a dozen pages more.
        changes = _changes(self._processes, fork)
        return changes if changes or fork.identity is not None else Idle()

    def reset(self, fork: Forking, note: list[_Change] | None) -> bool:
        pid = fork.parent or os.getppid()
        changes = _changes(_families.loaded(self.modules), fork) if note is None else note
        for process, parent, identity in changes:
            process._parent_process = _watching(process, parent, pid)
            if identity is not None:
                process._current_process = identity
                process._process_counter = count(1)
        return bool(changes)


def _changes(processes: Iterable[Any], fork: Forking) -> list[_Change]:
    """Return the modules whose idea of this process must change, and to what."""
    launcher = fork.origin.family if isinstance(fork.origin, Launch) else None
    pid = fork.parent or os.getppid()
    changes: list[_Change] = []
    for process in processes:
        name = process.__name__
        if name == f"{launcher}.process":
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
