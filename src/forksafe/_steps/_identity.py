"""Who the child is: `multiprocessing.current_process()` and `multiprocessing.parent_process()`.

A plain fork keeps the identity, with one correction: a ``parent_process()`` that was set names
the parent's parent after the fork. The child of `forked()` gets an identity of its own, as
``Process`` gives it.
"""

from __future__ import annotations

import os
import sys
from itertools import count

from .._origin import Launch
from .._step import Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from .._forking import Forking

__all__ = ["IdentityStep"]

_POLL = 0.05  # seconds between two looks at the parent, where there is no pidfd


class IdentityStep(Step):
    name = "identity"
    modules = ("multiprocessing.process", "multiprocess.process")

    def reset(self, fork: Forking, note: None) -> bool:
        launcher = fork.origin.family if isinstance(fork.origin, Launch) else None
        changed = False
        for name in self.modules:
            process = sys.modules.get(name)
            if process is None or name == f"{launcher}.process":
                continue
            current = getattr(process, "_current_process", None)
            expect(hasattr(current, "_name"), f"{name}._current_process has no _name")
            expect(
                hasattr(process, "_parent_process"), f"{name} has no _parent_process"
            )
            identity = fork.identity if name == "multiprocessing.process" else None
            if identity is not None or process._parent_process is not None:
                process._parent_process = _parent(process, current, fork)
                changed = True
            if identity is not None:
                process._current_process = identity
                process._process_counter = count(1)
        return changed


def _parent(process: ModuleType, current: Any, fork: Forking) -> object:
    pid = fork.parent or os.getppid()
    try:
        sentinel = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return _polled(process)(current._name, pid, None)
    if (
        os.getppid() != pid
    ):  # it ended before the pidfd was open, which may be of another process
        os.close(sentinel)
        return _polled(process)(current._name, pid, None)
    return process._ParentProcess(current._name, pid, sentinel)


def _polled(process: ModuleType) -> Any:
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
