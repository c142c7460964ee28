"""`Fork`: the handle of a `forked()` block, without a public constructor.

What it knows of the child's end comes from one place, `_exit_status`. Once known
it stays; once lost to other code, it is said to be lost.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from ._exit_status import ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._exit_status import Status


class Fork:
    """The handle of a `forked()` block: on the child in the parent, on itself in the child.

    Not constructed by users. All but `is_child`, `is_parent`, `pid` and `name` is for the parent,
    and raises RuntimeError elsewhere. Not thread-safe for waiting in two threads at once.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._owner = os.getpid()
        self._pid = 0
        self._status: Status | None = None
        self._exitcode: int | None = None
        self._lost = False
        self._closed = False

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
        return self._poll(block=False)

    @property
    def sentinel(self) -> int:
        """A file descriptor that turns readable when the child ends, for select() and the like.

        It is closed when the block ends.
        """
        status = self._parent_only("sentinel")
        if self._closed:
            raise ValueError(f"the sentinel of {self!r} is closed: the block has ended")
        return status.sentinel

    def is_alive(self) -> bool:
        """Tell whether the child still runs."""
        try:
            return self._poll(block=False) is None
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
        self._parent_only("wait()")
        if timeout is None:
            code = self._poll(block=True)
            assert code is not None
            return code
        try:
            deadline = time.monotonic() + timeout
        except TypeError:
            raise TypeError(f"timeout must be seconds or None, not {timeout!r}") from None
        while True:
            code = self._poll(block=False)
            if code is not None:
                return code
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self!r} still runs after {timeout} s")
            assert self._status is not None
            # In slices: on the pipe's side a grandchild may hold it open.
            if ready(self._status.sentinel, min(left, 0.05)):
                time.sleep(0.001)  # readable, and not yet reapable

    def send_signal(self, number: int) -> None:
        """Send a signal to the child. Nothing happens where it has ended already.

        Args:
            number: The signal, for one ``signal.SIGUSR1``.

        Raises:
            ValueError: There is no such signal.
        """
        __tracebackhide__ = True
        status = self._parent_only("send_signal()")
        if number not in signal.valid_signals():
            raise ValueError(f"{number!r} is not the number of a signal")
        if self.is_alive() and not self._closed:
            with suppress(ProcessLookupError):
                status.send(number)

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
        elif self._status is None or os.getpid() != self._owner:
            state = "unknown"
        else:
            state = "running, when last asked"
        return f"<Fork {self._name!r}, pid {self._pid}, {state}>"

    def _parent_only(self, what: str) -> Status:
        __tracebackhide__ = True
        if self._status is None or os.getpid() != self._owner:
            raise RuntimeError(
                f"{what} of {self!r} is for the process that forked it (pid {self._owner}); "
                f"this is pid {os.getpid()}"
            )
        return self._status

    def _poll(self, block: bool) -> int | None:
        __tracebackhide__ = True
        status = self._parent_only("the exit code")
        if self._exitcode is None:
            if not self._lost and not self._closed:
                try:
                    code = status.poll(block)
                except ChildProcessError:
                    # A signal handler (SIGCHLD's) may have asked in the midst of this, and been
                    # told.
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

    def _close(self) -> None:
        if self._status is not None and not self._closed:
            self._closed = True
            self._status.close()
