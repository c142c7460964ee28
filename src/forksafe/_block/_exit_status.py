"""One source of a child's exit status, and signals that reach this child or nobody.

With a pidfd (Linux 5.4) both go by the process itself: a pid that the kernel has given to another
process meanwhile cannot be hit. Elsewhere a pipe that the child holds tells its end, and waitpid
its status. Whoever reaps the child first, only the true status is ever told.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Status(Protocol):
        """Where the exit status of one child comes from."""

        @property
        def sentinel(self) -> int:
            """A file descriptor that turns readable when the child ends."""
            ...

        def poll(self, block: bool) -> int | None:
            """Reap the child if it has ended (`block`: wait until it has).

            Returns: its exit code, None while it runs.
            Raises: ChildProcessError where somebody else reaped it.
            """

        def send(self, number: int) -> None:
            """Send a signal. Raises ProcessLookupError where there is no such process."""

        def close(self) -> None:
            """Close the file descriptors."""


def ready(fd: int, timeout: float | None) -> bool:
    """Wait until `fd` is readable or at its end.

    Args:
        fd: The file descriptor; any number, there is no limit as select(2) has one.
        timeout: Seconds; None: no limit.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    # Rounded up, or the last wait of a deadline would spin.
    return bool(poll.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999))))


class PidfdStatus:
    """By pidfd_open(2) and waitid(2) with P_PIDFD."""

    def __init__(self, pid: int) -> None:
        self.sentinel = os.pidfd_open(pid)

    def poll(self, block: bool) -> int | None:
        # Not waitid(block): poll() is interrupted by signals whose handlers then run at once.
        if not ready(self.sentinel, None if block else 0):
            return None
        result = os.waitid(os.P_PIDFD, self.sentinel, os.WEXITED | os.WNOHANG)
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def send(self, number: int) -> None:
        signal.pidfd_send_signal(self.sentinel, number)

    def close(self) -> None:
        os.close(self.sentinel)


class PipeStatus:
    """By waitpid(2), and the read end of a pipe whose write end the child holds."""

    _LOOK = 0.05  # seconds: a grandchild may hold the pipe open beyond the child's end

    def __init__(self, pid: int, sentinel: int) -> None:
        self._pid = pid
        self.sentinel = sentinel

    def poll(self, block: bool) -> int | None:
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if not block:
                return None
            if ready(self.sentinel, self._LOOK):
                time.sleep(0.001)  # between the end of its descriptors and its own

    def send(self, number: int) -> None:
        os.kill(self._pid, number)

    def close(self) -> None:
        os.close(self.sentinel)


_pidfds: bool | None = None


def have_pidfds() -> bool:
    """Tell whether the kernel and this Python have pidfds."""
    global _pidfds
    if _pidfds is None:
        _pidfds = _try_pidfd()
    return _pidfds


def _try_pidfd() -> bool:
    if not (hasattr(os, "pidfd_open") and hasattr(os, "P_PIDFD")):
        return False
    try:
        fd = os.pidfd_open(os.getpid())
        try:
            os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return True  # not our child: the kernel knows the question
        finally:
            os.close(fd)
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return False
    return True
