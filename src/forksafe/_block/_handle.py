"""`Fork`: the handle of a `forked()` block, without a public constructor.

With a pidfd (Linux 5.4) exit status and signals go by the process itself, so that no other process
is hit which has got the pid. Elsewhere a pipe that the child holds tells of the child's end.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

_LOOK = 0.05  # seconds: a grandchild may hold the pipe open beyond the child's end


class Fork:
    """The handle of a `forked()` block: on the child in the parent, on itself in the child.

    Not constructed by users. Methods and properties are for the parent, and raise RuntimeError in
    any other process. Only one thread at a time may wait.

    Attributes:
        name: The child's name, as ``multiprocessing.current_process().name`` shows it there.
        is_child: Whether this is the child's run of the block.
        is_parent: Whether this is the parent's run of the block.
        pid: The child's process id; 0 in the child.
    """

    def __init__(self, name: str) -> None:
        self.name, self.pid = name, 0
        self.is_child, self.is_parent = True, False
        self._owner, self._lost = os.getpid(), False
        # In the parent, until the block has ended: the pipe, then the pidfd if there are any.
        self._fds: list[int] = []
        self._exitcode: int | None = None

    @property
    def exitcode(self) -> int | None:
        """The child's exit code; None while it is alive, and negative where a signal ended it.

        Raises:
            ChildProcessError: Some other code reaped the child, and its status with it.
        """
        self._parent_only("exitcode")
        return self._wait(0)

    @property
    def sentinel(self) -> int:
        """A file descriptor that turns readable when the child ends; closed as the block ends."""
        self._parent_only("sentinel")
        if not self._fds:
            raise ValueError(f"the sentinel of {self!r} is closed: the block has ended")
        return self._fds[-1]

    def is_alive(self) -> bool:
        """Tell whether the child still runs."""
        self._parent_only("is_alive()")
        try:
            return self._wait(0) is None
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
        if timeout is not None and not hasattr(timeout, "__float__"):
            raise TypeError(f"timeout must be seconds or None, not {timeout!r}")
        self._parent_only("wait()")
        if (code := self._wait(timeout)) is None:
            raise TimeoutError(f"{self!r} still runs after {timeout} s")
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the child. Nothing happens where it has ended already.

        Raises:
            ValueError: `number` is not that of a signal.
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
                    os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM to the child."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the child."""
        self.send_signal(signal.SIGKILL)

    def __repr__(self) -> str:
        if self.is_child:
            return f"<Fork {self.name!r}, in the child>"
        known = self._fds and os.getpid() == self._owner
        state = "running, when last asked" if known else "unknown"
        if self._lost:
            state = "reaped by other code"
        elif self._exitcode is not None:
            state = f"exit code {self._exitcode}"
        return f"<Fork {self.name!r}, pid {self.pid}, {state}>"

    def _parent_only(self, what: str) -> None:
        __tracebackhide__ = True
        if os.getpid() != self._owner:
            whose = f"the process that forked it (pid {self._owner}); this is pid {os.getpid()}"
            raise RuntimeError(f"{what} of {self!r} is for {whose}")

    def _watch(self, pid: int, pipe: int) -> None:
        """Take the child's pid, and the read end of a pipe whose write end the child holds."""
        self.pid, self.is_child, self.is_parent = pid, False, True
        self._fds.append(pipe)
        try:
            # In C until the list has it: no handler runs in between.
            self._fds.extend(map(os.pidfd_open, (pid,)))
            # Linux 5.3 has pidfds, but no P_PIDFD.
            os.waitid(os.P_PIDFD, self._fds[1], os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except (AttributeError, OSError):  # the pipe will do
            while len(self._fds) > 1:
                os.close(self._fds.pop())

    def _wait(self, timeout: float | None) -> int | None:
        """Wait for the exit code, for `timeout` seconds; None: the child still runs."""
        __tracebackhide__ = True
        if self._exitcode is None and not self._lost and self._fds:
            # A signal handler (SIGCHLD's) may run inside of this, and get the exit code itself.
            try:
                if (code := self._await(timeout)) is not None:
                    self._exitcode = code
            except ChildProcessError:
                self._lost = self._exitcode is None
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
            ready = _ready(pidfd[0], timeout)
            end = os.waitid(os.P_PIDFD, pidfd[0], os.WEXITED | os.WNOHANG) if ready else None
            if end is None:
                return None
            return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if left <= 0:
                return None
            if _ready(pipe, left):
                time.sleep(0.001)  # between the close of its descriptors and its end

    def _told(self) -> str:
        """Read what the child told of its failure; it has ended."""
        # Not until EOF: a grandchild may hold the pipe open. The child has written all at once.
        data = os.read(self._fds[0], 65536) if _ready(self._fds[0], 0) else b""
        return data.decode(errors="replace")


def _ready(fd: int, timeout: float | None) -> bool:
    """Wait until `fd`, however high, is readable or at EOF, for `timeout` seconds at most."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    # Rounded up, or the last wait of a deadline would spin; 23 days are as much as poll() takes.
    limit = None if timeout is None else max(0, int(min(timeout, 2e6) * 1000 + 0.999))
    return bool(poll.poll(limit))
