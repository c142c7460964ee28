"""Row 17: the parent's ``TemporaryDirectory`` objects are the parent's to delete.

What the child's own code asks for happens: ``cleanup()``, and the end of a ``with`` block, delete.
What only the end of a process, or the collection of the object, would do is left to the owner.
Where the owner has ended without doing it (a daemonizer ends its parent by ``os._exit()``), the
last process that inherited the directory does it at its end. A `Lifeline` of each owner tells which
is the last; where a daemon has closed that one too, it counts that the owner is no more.

The finalizer of each object stays alive, for ``cleanup()`` asks it; only its function changes.
"""

from __future__ import annotations

import atexit
import os
import sys

from .._fork_event._step import NOTHING, Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._fork_event import ForkEvent


class TempDirsStep(Step):
    name = "temporary directories"
    modules = ("tempfile",)

    def note(self, fork: ForkEvent) -> list[Any]:
        weakref: Any = sys.modules.get("weakref")
        if not weakref.finalize._registry:
            return NOTHING  # type: ignore[no-any-return] # stands for itself
        # Here and not in the child, where a walk would copy the page of each finalizer.
        infos = [_info(finalizer) for finalizer, _ in live_directories()]
        if any(type(info.func) is not _Heir for info in infos):
            _own_lifeline()
        return infos or NOTHING

    def reset(self, fork: ForkEvent, note: list[Any] | None) -> bool:
        infos = note
        if infos is None:
            infos = [_info(finalizer) for finalizer, _ in live_directories()]
        heirs.inherit(infos, fork.parent or os.getppid())
        return bool(infos)


class _Heir:
    """In place of the function that deletes a directory, in a process that inherited it.

    Attributes:
        owner: The pid of the process that made the directory.
        lifeline: What that process's children hold; None where it had no descriptor left.
        is_due: Whether it is this process that must delete, for it is the last one.
    """

    def __init__(self, info: Any, owner: int, lifeline: Lifeline | None) -> None:
        self._delete = info.func
        self._reference = info.weakref
        self.owner = owner
        self.lifeline = lifeline
        self.is_due = False
        self._collected: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Delete, if it is due; else remember that the object is no more."""
        if not self.is_due:
            self._collected = (name, *args), kwargs
        elif os.path.exists(name):
            self._delete(name, *args, **kwargs)

    def leave(self) -> None:
        """Leave it to another process, whatever exit handler of the program calls cleanup()."""
        directory = self._reference()
        if directory is not None:
            directory._rmtree = _nothing

    def come_due(self) -> None:
        self.is_due = True
        if self._collected is not None:
            args, kwargs = self._collected
            self(*args, **kwargs)


class _Heirs:
    """What this process has inherited, and what it does about that at its end."""

    def __init__(self) -> None:
        self._heirs: list[_Heir] = []
        self._registered = False
        self.lifeline: Lifeline | None = None  # of the directories that this process has made

    def inherit(self, infos: list[Any], parent: int) -> None:
        lifeline, self.lifeline = self.lifeline, None
        for info in infos:
            if type(info.func) is not _Heir:
                info.func = _Heir(info, parent, lifeline)
                self._heirs.append(info.func)
        if infos and not self._registered:
            self._registered = True
            atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        # Registered later than the function of weakref.finalize, and so run before it, and before
        # the exit handlers that the process inherited.
        last: dict[Lifeline | None, bool | None] = {None: None}
        for heir in self._heirs:
            if heir.lifeline not in last:
                assert heir.lifeline is not None
                last[heir.lifeline] = heir.lifeline.is_last()
            is_last = last[heir.lifeline]
            if is_last or (is_last is None and not _is_alive(heir.owner)):
                heir.come_due()
            else:
                heir.leave()


def _nothing(*args: object, **kwargs: object) -> None:
    """Stand in for `TemporaryDirectory._rmtree`."""


heirs = _Heirs()


def _own_lifeline() -> None:
    if heirs.lifeline is None:
        try:
            heirs.lifeline = Lifeline()
        except OSError:
            pass  # no descriptor left: see `_is_alive`


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _info(finalizer: Any) -> Any:
    info = finalizer._registry.get(finalizer)
    expect(hasattr(info, "func"), "weakref.finalize without a function")
    return info


def live_directories() -> list[tuple[Any, Any]]:
    """Return the finalizer and the object of every live ``TemporaryDirectory``. Reads only."""
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    registry: Any = getattr(finalize, "_registry", None)
    expect(isinstance(registry, dict), "weakref.finalize._registry is no dict")
    if not registry:
        return []
    cleanup = getattr(sys.modules["tempfile"].TemporaryDirectory, "_cleanup", None)
    expect(hasattr(cleanup, "__func__"), "TemporaryDirectory._cleanup is no class method")
    assert cleanup is not None
    live = []
    for finalizer, info in list(registry.items()):
        if type(info.func) is _Heir or getattr(info.func, "__func__", None) is cleanup.__func__:
            directory = info.weakref()
            if directory is not None:
                live.append((finalizer, directory))
    return live


class Lifeline:
    """A pipe whose write end lives as long as the process that made it, or any of its children.

    Attributes:
        owner: The pid of the process that made it.

    Raises:
        OSError: No file descriptor is left.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._read, self._write = os.pipe()
        # A program that closes every descriptor (a daemon does) may have other files by the same
        # numbers later.
        self._pipe = _identity(self._read)

    def drop_read_end(self) -> None:
        """In a child that will not ask: keep nothing but the write end."""
        read, self._read = self._read, -1
        if read >= 0 and _identity(read) == self._pipe:
            os.close(read)

    def is_last(self) -> bool | None:
        """Let go of the pipe, as this process ends; tell whether no other process holds it.

        Returns:
            None where that cannot be known: the program has closed the descriptors.
        """
        read, self._read = self._read, -1
        if _identity(read) != self._pipe or _identity(self._write) != self._pipe:
            return None
        os.close(self._write)
        os.set_blocking(read, False)
        try:
            os.read(read, 1)
        except BlockingIOError:
            return False
        finally:
            os.close(read)
        return True


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino
