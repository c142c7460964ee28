"""Row 17: the parent's ``TemporaryDirectory`` objects are the parent's to delete.

What the child's own code asks for happens: ``cleanup()``, and the end of a ``with`` block, delete.
What only the end of a process, or the collection of the object, would do is left to the owner.
Where the owner has ended without doing it (a daemonizer ends its parent by ``os._exit()``), the
last process that inherited the directory does it at its end: a `Lifeline` of each owner tells which
is the last. Where a daemon has closed the lifeline, it deletes if the owner is no longer alive.
"""

from __future__ import annotations

import atexit
import os
import sys

from .._fork_event import NOTHING, ForkEvent, Step, _who, expect
from .._fork_event._typing import Any, Callable

AFTER_THE_CHILDREN = -1000  # priority of a finalizer: multiprocessing has joined its children


class TempDirsStep(Step):
    name = "temporary directories"
    modules = ("tempfile",)
    looks = ("weakref:finalize._registry",)  # tempfile imports weakref

    def __init__(self) -> None:
        self._heirs: list[_Heir] = []  # of what this process has inherited
        self._lifeline: Lifeline | None = None  # of the directories that it has made

    def note(self, fork: ForkEvent) -> Any:
        # Here and not in the child, where a walk would copy the page of each finalizer.
        infos = [info for info, _ in live_directories()]
        if self._lifeline is None and any(type(info.func) is not _Heir for info in infos):
            self._lifeline = Lifeline()
        return infos or NOTHING

    def reset(self, fork: ForkEvent, note: list[Any] | None) -> bool:
        infos = [info for info, _ in live_directories()] if note is None else note
        lifeline, self._lifeline = self._lifeline, None
        if infos and not self._heirs:
            atexit.register(self._at_exit)
        for info in infos:
            if type(info.func) is not _Heir:
                info.func = _Heir(info, fork.parent or os.getppid(), lifeline)
                self._heirs.append(info.func)
        return bool(infos)

    def _at_exit(self, again: bool = True) -> None:
        # Registered last, so it runs before weakref.finalize's handler and all inherited ones.
        lifelines = {heir.lifeline for heir in self._heirs if heir.lifeline is not None}
        last = {lifeline: lifeline.is_last() for lifeline in lifelines}
        for heir in self._heirs:
            is_last = None if heir.lifeline is None else last[heir.lifeline]
            if is_last or (is_last is None and not _is_alive(heir.owner)):
                heir.is_due = True
                heir.when_due()
            else:
                heir.leave()
        # The last may be children that multiprocessing ends at our own end: then we ask again.
        for util in _who.loaded(_who.submodules("util")) if again else ():
            util.Finalize(None, self._at_exit, (False,), exitpriority=AFTER_THE_CHILDREN)


def live_directories() -> list[tuple[Any, Any]]:
    """Return every live ``TemporaryDirectory``, each after its finalizer's info. Reads only."""
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    registry: Any = getattr(finalize, "_registry", None)
    expect(isinstance(registry, dict), "weakref.finalize._registry is no dict")
    cleanup: Any = getattr(sys.modules["tempfile"].TemporaryDirectory, "_cleanup", None)
    expect(hasattr(cleanup, "__func__"), "TemporaryDirectory._cleanup is no class method")
    return [
        (info, directory)
        for info in list(registry.values())
        if type(info.func) is _Heir or getattr(info.func, "__func__", None) is cleanup.__func__
        if (directory := info.weakref()) is not None
    ]


class _Heir:
    """Stands in for the function that deletes a directory, in a process that inherited it."""

    def __init__(self, info: Any, owner: int, lifeline: Lifeline | None) -> None:
        self._delete, self._reference = info.func, info.weakref
        self.owner = owner  # the pid of the process that made the directory
        self.lifeline = lifeline  # that process's children hold it; None: it had no descriptor left
        self.is_due = False  # whether this process must delete, for it is the last one
        self.when_due: Callable[[], object] = int  # nothing

    def __call__(self, name: str, **more: Any) -> None:
        """Delete the directory, if that is due; else remember that its object is no more."""
        if not self.is_due:
            self.when_due = lambda: self(name, **more)
        elif os.path.exists(name):
            self._delete(name, **more)

    def leave(self) -> None:
        """Leave the directory to another process, even if an exit handler calls cleanup()."""
        directory = self._reference()
        if directory is not None:
            directory._rmtree = lambda *args, **kwargs: None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as exc:
        return isinstance(exc, PermissionError)
    return True


class Lifeline:
    """A pipe whose write end lives as long as the process that made it, or any of its children."""

    def __init__(self) -> None:
        self._ends = [*os.pipe()]  # in a process that ends: the read end alone
        self._pipe = identity(self._ends[0])  # another file may have the numbers one day

    def is_last(self) -> bool | None:
        """Let go of the pipe, as this process ends; tell whether no other process holds it.

        None where that cannot be known: the program has closed the descriptors.
        """
        if {*map(identity, self._ends)} != {self._pipe}:
            return None
        read, *write = self._ends
        del self._ends[1:]
        for end in write:
            os.close(end)
        os.set_blocking(read, False)
        try:
            os.read(read, 1)
        except BlockingIOError:
            return False
        return True


def identity(fd: int) -> tuple[int, int] | None:
    """Return what tells an open file from all others."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino
