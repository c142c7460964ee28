"""A pipe that tells whether any process that inherited it still lives."""

from __future__ import annotations

import os


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
