"""One source of a child's exit status, and signals that reach this child or nobody.

With a pidfd (Linux 5.4) both go by the process itself: a pid that the kernel has given to another
process meanwhile cannot be hit. Elsewhere the end of a pipe that the child holds open tells its
end, and waitpid its status. Whoever reaps the child first, only the true status is ever told.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time


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


class Status:
    """Where the exit status of one child comes from, and what the child told of its failure.

    Args:
        pid: The child.
        pipe: The read end of a pipe to whose write end the child holds on.

    Attributes:
        sentinel: A file descriptor that turns readable when the child ends.
    """

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid = pid
        self._pipe = pipe
        self.sentinel = pipe

    def poll(self, block: bool) -> int | None:
        """Reap the child if it has ended (`block`: wait until it has).

        Returns: its exit code, None while it runs.
        Raises: ChildProcessError where somebody else reaped it.
        """
        raise NotImplementedError

    def send(self, number: int) -> None:
        """Send a signal. Raises ProcessLookupError where there is no such process."""
        raise NotImplementedError

    def told(self) -> str:
        """Read what the child, which has ended, told of its failure."""
        data = b""
        while ready(self._pipe, 0):  # and not to its end: a grandchild may hold it open
            part = os.read(self._pipe, 65536)
            if not part:
                break
            data += part
        return data.decode(errors="replace")

    def close(self) -> None:
        """Close the file descriptors."""
        os.close(self._pipe)
        if self.sentinel != self._pipe:
            os.close(self.sentinel)


class PidfdStatus(Status):
    """By pidfd_open(2) and waitid(2) with P_PIDFD."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.sentinel = os.pidfd_open(pid)
        self._pipe = pipe

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


class PipeStatus(Status):
    """By waitpid(2), and the pipe: its write end is closed when the child ends."""

    _LOOK = 0.05  # seconds: a grandchild may hold the pipe open beyond the child's end

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
