"""`forked()`: a fork as a block, which the child never leaves.

The block is run by both processes, and each comes to its end by itself. In the child every way out
(the end, ``return``, ``break``, an exception, ``sys.exit()``) ends the process there and then, so
that the program around the block is run by the parent alone. In the parent the end of the block
waits for the child; no way out leaves a zombie or an orphan.

The one door that no ``with`` statement can guard is a ``yield`` or ``await`` inside the block: it
leaves the block without ending it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from .. import _safe_fork
from .._fork_event._signals import Signals
from ..exceptions import ChildFailedError
from ._child_end import end
from ._exit_status import PidfdStatus, PipeStatus, have_pidfds
from ._handle import Fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Any, Literal

    from .._hazard import Hazard
    from ._exit_status import Status


def forked(
    *,
    name: str | None = None,
    check: bool = True,
    grace: float = 5.0,
    on_hazard: Literal["ignore", "warn", "raise"] = "ignore",
    allow: Iterable[str] = (),
    drop_connections: bool = False,
) -> _Forked:
    """Fork for the length of a ``with`` block. Both processes run it; the child never leaves it.

    ::

        with forked() as fork:
            if fork.is_child:
                work()        # leaving the block, by any door, ends this process
        # only the parent comes here; the child is reaped

    ================================  =======================================================
    how the child's block ends        what becomes of it
    ================================  =======================================================
    at its end                        exit code 0
    ``SystemExit``                    as the interpreter does it
    ``KeyboardInterrupt``             exit code 130, no traceback
    any other exception               traceback on stderr, exit code 1
    ================================  =======================================================

    Before it ends, the child joins its non-daemon threads, runs the exit handlers and
    multiprocessing finalizers that it registered itself, and flushes its streams.

    Leaving the block normally, the parent waits for the child. Leaving it by an exception, it
    sends the child SIGTERM, after `grace` seconds SIGKILL, reaps it, and the exception goes on.

    Args:
        name: The child's name, as ``multiprocessing.current_process().name`` and so log records
            show it. Default: ``ForkedProcess-N``.
        check: Raise unless the child's exit code is 0.
        grace: Seconds between SIGTERM and SIGKILL.
        on_hazard: What to do where `audit()` finds something that needs action: ``"ignore"``,
            ``"warn"`` or ``"raise"``, as for `safe_fork()`.
        allow: Hazards that are accepted, as patterns: see `audit()`.
        drop_connections: Whether the child lets go of the parent's connections: see `install()`.

    Returns:
        A context manager, for one use, that yields a `Fork`.

    Raises:
        ChildFailedError: At the end of the block, where `check` is true and the child failed.
        ChildProcessError: At the end of the block: other code reaped the child.
        NotImplementedError: On entering, where there is no ``os.fork``.
        OSError: On entering, where the kernel refuses to fork.

    Source: fork(2), waitid(2), pidfd_open(2); ``multiprocessing.popen_fork``.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str or None, not {name!r}")
    if not grace >= 0:
        raise ValueError(f"grace must be a number of seconds, 0 or more, not {grace!r}")
    if on_hazard not in ("ignore", "warn", "raise"):
        raise ValueError(f"on_hazard must be ignore, warn or raise, not {on_hazard!r}")
    return _Forked(name, check, grace, on_hazard, allow, drop_connections)


# What the child of a block leaves to the parent, as it ends by os._exit().
_LEFT_ALONE = ("temporary-file",)


class _Forked:
    def __init__(
        self,
        name: str | None,
        check: bool,
        grace: float,
        on_hazard: str,
        allow: Iterable[str],
        drop_connections: bool,
    ) -> None:
        self._drop_connections = drop_connections
        self._name = name
        self._check = check
        self._grace = grace
        self._on_hazard = on_hazard
        self._allow = allow
        self._fork: Fork | None = None

    def __enter__(self) -> Fork:
        if self._fork is not None:
            raise RuntimeError("a forked() block is for one use; call forked() again")
        _safe_fork.require()
        policy: Any = None
        hazards: tuple[Hazard, ...] = ()
        if self._on_hazard != "ignore":
            from .._audit import _policy as policy

            hazards = policy.before(self._on_hazard, self._allow, _LEFT_ALONE)
        if _WARNS_BEHIND:
            _warn_before()
        identity = _identity(self._name)
        self._fork = fork = Fork(identity.name)
        made: list[int] = []
        pipe = None if have_pidfds() else os.pipe()
        signals = Signals()
        signals.kept = True
        try:
            # A handler that raises must find the child's pid known here, or nobody would stop it,
            # and must not carry the child out of the block before it is in it.
            signals.block()
            fork._pid = _safe_fork.fork(
                sys._getframe().f_back,
                made,
                drop_connections=self._drop_connections,
                identity=identity,
                signals=signals,
            )
            if fork._pid:
                fork._status = _status(made, pipe)
                if hazards:
                    policy.after(hazards)
            elif pipe is not None:
                os.close(pipe[0])  # the write end lives as long as this process
            signals.release()
        except BaseException as exc:
            if os.getpid() != fork._owner:
                end(type(exc), exc, exc.__traceback__)
            try:
                if made and fork._status is None:  # a handler: another thread took its signal
                    fork._pid = made[0]
                    fork._status = _status(made, pipe)
                signals.release()
            finally:
                if fork._status is not None:
                    self._stop(fork)
                    fork._close()
                elif pipe is not None:
                    os.close(pipe[0])
            raise
        finally:
            if pipe is not None and os.getpid() == fork._owner:
                os.close(pipe[1])
        return fork

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        fork = self._fork
        assert fork is not None
        if fork.is_child:
            end(exc_type, exc, traceback)
        if os.getpid() != fork._owner:
            return False  # another child of the parent, forked inside the block: not its to wait
        try:
            if exc_type is not None:
                self._stop(fork)
                return False
            try:
                fork.wait()
            except ChildProcessError:
                raise
            except BaseException:
                self._stop(fork)
                raise
        finally:
            fork._close()
        code = fork._exitcode
        if self._check and code:
            raise ChildFailedError(fork.pid, code, fork.name)
        return False

    def _stop(self, fork: Fork) -> None:
        try:
            fork.terminate()
            fork.wait(self._grace)
        except ChildProcessError:
            pass  # reaped by other code, so there is nothing left to stop
        except TimeoutError:
            self._kill(fork)
        except BaseException:  # a second Ctrl-C: no more grace
            self._kill(fork)
            raise

    def _kill(self, fork: Fork) -> None:
        with suppress(ChildProcessError):
            fork.kill()
            fork.wait()


def _status(made: list[int], pipe: tuple[int, int] | None) -> Status:
    pid = made[0]
    try:
        return PidfdStatus(pid) if pipe is None else PipeStatus(pid, pipe[0])
    except ProcessLookupError:
        # Ended already, and reaped by other code: waitpid will say so.
        read, write = os.pipe()
        os.close(write)
        return PipeStatus(pid, read)
    except OSError:
        # No descriptor left for a pidfd: the block cannot start, and leaves no child behind.
        made.clear()
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


# Since 3.15 the warning of a fork in a process of several threads, where the filters make an
# exception of it, is raised behind the fork: the child runs, and nobody knows its pid.
_WARNS_BEHIND = sys.version_info >= (3, 15)


def _warn_before() -> None:
    """Raise it before the fork."""
    from .._fork_event._filters import would_raise

    text = (
        f"This process (pid={os.getpid()}) is multi-threaded, use of fork() may lead to deadlocks "
        "in the child."
    )
    if would_raise(text, DeprecationWarning, _safe_fork.__name__, 0) and _threads() > 1:
        raise DeprecationWarning(text)


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # as CPython counts: not only Python's
    except OSError:
        return threading.active_count()


_process_type: Any = None


def _identity(name: str | None) -> Any:
    """Return the process object that the child is to be known by.

    Names and parents are multiprocessing's to tell, also where the program imports it later.
    """
    global _process_type
    if _process_type is None:
        from multiprocessing.process import BaseProcess

        _process_type = type("ForkedProcess", (BaseProcess,), {})
    return _process_type(name=name)
