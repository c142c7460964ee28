"""`Fork`: the handle of a `forked()` block, without a public constructor.

The one source of a child's exit status, and of signals that reach this child or nobody. With a
pidfd (Linux 5.4) both go by the process itself: a pid that the kernel has given to another process
meanwhile cannot be hit. Elsewhere the end of a pipe that the child holds open tells its end, and
waitpid its status. Whoever reaps the child first, only the true status is ever told: once known it
stays; once lost to other code, it is said to be lost.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from contextlib import suppress

_LOOK = 0.05  # seconds: a grandchild may hold the pipe open beyond the child's end


class Fork:
    """The handle of a `forked()` block: on the child in the parent, on itself in the child.

    Not constructed by users. All but `is_child`, `is_parent`, `pid` and `name` is for the parent,
    and raises RuntimeError elsewhere. Not thread-safe for waiting in two threads at once.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._owner = os.getpid()
        self._pid = 0
        # In the parent, until the block has ended: the pipe, then the pidfd if there are any.
        self._fds: list[int] = []
        self._exitcode: int | None = None
        self._lost = False

    @property
    def name(self) -> str:
        """The child's name, as ``multiprocessing.current_process().name`` shows it there."""
        return self._name

    @property
    def is_child(self) -> bool:
        """True in the child's run of the block."""
        return self._pid == 0

    @property
    def is_parent(self) -> bool:
        """True in the parent's run of the block."""
        return self._pid != 0

    @property
    def pid(self) -> int:
        """The child's process id; 0 in the child."""
        return self._pid

    @property
    def exitcode(self) -> int | None:
        """The child's exit code; None while it is alive, and negative where a signal ended it.

        Raises:
            ChildProcessError: Some other code reaped the child, and its status with it.
        """
        return self._wait(0, "exitcode")

    @property
    def sentinel(self) -> int:
        """A file descriptor that turns readable when the child ends, for select() and the like.

        It is closed when the block ends.
        """
        self._parent_only("sentinel")
        if not self._fds:
            raise ValueError(f"the sentinel of {self!r} is closed: the block has ended")
        return self._fds[-1]

    def is_alive(self) -> bool:
        """Tell whether the child still runs."""
        try:
            return self._wait(0, "is_alive()") is None
        except ChildProcessError:
            return False

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the child to end.

        Args:
            timeout: Seconds to wait at most; None: no limit.

        Returns:
            The exit code; negative, the signal that ended the child.

        Raises:
            TimeoutError: The child still runs after `timeout`; it is left alone.
            ChildProcessError: Some other code reaped the child, and its status with it.
        """
        __tracebackhide__ = True
        try:
            timeout = timeout if timeout is None else timeout + 0.0
        except TypeError:
            raise TypeError(f"timeout must be seconds or None, not {timeout!r}") from None
        code = self._wait(timeout, "wait()")
        if code is None:
            raise TimeoutError(f"{self!r} still runs after {timeout} s")
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the child. Nothing happens where it has ended already.

        Args:
            number: The signal, for one ``signal.SIGUSR1``.

        Raises:
            ValueError: There is no such signal.
        """
        __tracebackhide__ = True
        self._parent_only("send_signal()")
        if number not in signal.valid_signals():
            raise ValueError(f"{number!r} is not the number of a signal")
        if self._fds and self.is_alive():
            with suppress(ProcessLookupError):
                if len(self._fds) > 1:
                    signal.pidfd_send_signal(self._fds[1], number)
                else:
                    os.kill(self._pid, number)

    def terminate(self) -> None:
        """Send SIGTERM to the child."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the child."""
        self.send_signal(signal.SIGKILL)

    def __repr__(self) -> str:
        if self.is_child:
            return f"<Fork {self._name!r}, in the child>"
        if self._lost:
            state = "reaped by other code"
        elif self._exitcode is not None:
            state = f"exit code {self._exitcode}"
        elif not self._fds or os.getpid() != self._owner:
            state = "unknown"
        else:
            state = "running, when last asked"
        return f"<Fork {self._name!r}, pid {self._pid}, {state}>"

    def _parent_only(self, what: str) -> None:
        __tracebackhide__ = True
        if self.is_child or os.getpid() != self._owner:
            raise RuntimeError(
                f"{what} of {self!r} is for the process that forked it (pid {self._owner}); "
                f"this is pid {os.getpid()}"
            )

    def _watch(self, pid: int, pipe: int) -> None:
        """Take the child, and the read end of a pipe whose write end it holds."""
        self._pid = pid
        self._fds.append(pipe)
        try:
            # In C until the list has it: no handler runs in between.
            self._fds.extend(map(os.pidfd_open, (pid,)))
            # Linux 5.3 does not know the question.
            os.waitid(os.P_PIDFD, self._fds[1], os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except AttributeError:
            pass
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                # The block cannot start, and leaves no child behind.
                self._lost = True
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                raise
            for fd in self._fds[1:]:
                self._fds.remove(fd)
                os.close(fd)

    def _wait(self, timeout: float | None, what: str) -> int | None:
        """Wait for the exit code, for `timeout` seconds; None: the child still runs."""
        __tracebackhide__ = True
        self._parent_only(what)
        if self._exitcode is None and not self._lost and self._fds:
            try:
                code = self._await(timeout)
            except ChildProcessError:
                # A signal handler (SIGCHLD's) may have asked in the midst of this, and been told.
                self._lost = self._exitcode is None
            else:
                if code is not None:  # no news, and the handler may have been told since
                    self._exitcode = code
        if self._lost:
            raise ChildProcessError(
                f"the exit status of {self!r} is lost: code other than forksafe reaped it "
                "(os.wait(), os.waitpid(-1) or SIGCHLD set to SIG_IGN)"
            )
        return self._exitcode

    def _await(self, timeout: float | None) -> int | None:
        pipe, *pidfd = self._fds
        if pidfd:
            # Not by waitid(): poll() is interrupted by signals, whose handlers then run at once.
            if not _ready(pidfd[0], timeout):
                return None
            result = os.waitid(os.P_PIDFD, pidfd[0], os.WEXITED | os.WNOHANG)
            if result is None:
                return None
            return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if left <= 0:
                return None
            if _ready(pipe, left):
                time.sleep(0.001)  # between the end of its descriptors and its own

    def _told(self) -> str:
        """Read what the child, which has ended, told of its failure."""
        data = b""
        while _ready(self._fds[0], 0):  # and not to its end: a grandchild may hold it open
            part = os.read(self._fds[0], 65536)
            if not part:
                break
            data += part
        return data.decode(errors="replace")

    def _close(self) -> None:
        """Let go of the child, at the end of the block."""
        while self._fds:
            os.close(self._fds.pop())


def _ready(fd: int, timeout: float | None) -> bool:
    """Wait until `fd`, any number, is readable or at its end, for `timeout` seconds at most."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    # Rounded up, or the last wait of a deadline would spin.
    return bool(poll.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999))))
