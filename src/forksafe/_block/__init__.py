"""`forked()`: a fork as a block, which the child never leaves.

The block is run by both processes, and each comes to its end by itself. In the child every way out
(the end, ``return``, ``break``, an exception, ``sys.exit()``) ends the process there and then, so
that the program around the block is run by the parent alone. In the parent the end of the block
waits for the child; no way out leaves a zombie, nor an orphan while the parent runs to its end.

The one door that no ``with`` statement can guard is a ``yield`` or ``await`` inside the block: it
leaves the block without ending it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from itertools import chain, starmap

from .. import _safe_fork
from .._fork_event._signals import Signals
from ..exceptions import ChildFailedError
from ._child_end import Report, end
from ._handle import Fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Any, Literal

    from .._hazard import Hazard


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

    Before it ends, the child finishes what it made itself: it joins its non-daemon threads, runs
    its exit handlers and multiprocessing finalizers, shuts down its handlers of ``logging``,
    completes the files that it left open, runs ``__del__()`` of its other objects and the
    ``finally`` of its generators, and flushes stdout and stderr. coverage.py saves its data, where
    each process has a data file of its own.

    Nothing of the parent's is finished. That includes text that the child has written into a file
    object of the parent's: flush it. Nor are buffers of C libraries. On PyPy, on free-threaded
    builds and after ``gc.freeze()``, only files are found, those over descriptors of the child's.

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
        ChildFailedError: At the end of the block, where `check` is true and the child failed; with
            the child's traceback.
        ChildProcessError: At the end of the block: other code reaped the child.
        NotImplementedError: On entering, where there is no ``os.fork``.
        OSError: On entering, where the kernel refuses to fork.

    Source: fork(2), waitid(2), pidfd_open(2); ``multiprocessing.popen_fork``.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str or None, not {name!r}")
    try:
        wrong = not grace >= 0
    except TypeError:
        wrong = True
    if wrong:
        raise ValueError(f"grace must be a number of seconds, 0 or more, not {grace!r}")
    if on_hazard not in ("ignore", "warn", "raise"):
        raise ValueError(f"on_hazard must be ignore, warn or raise, not {on_hazard!r}")
    return _Forked(name, check, grace, (on_hazard, allow), drop_connections)


# What the child of a block leaves to the parent, as it ends by os._exit().
_LEFT_ALONE = ("temporary-file",)


class _Forked:
    def __init__(
        self, name: str | None, check: bool, grace: float, policy: Any, drop_connections: bool
    ) -> None:
        self._name, self._check, self._grace, self._policy = name, check, grace, policy
        self._drop_connections = drop_connections
        self._fork: Fork | None = None
        self._report: Any = None

    def __enter__(self) -> Fork:
        __tracebackhide__ = True
        if self._fork is not None:
            raise RuntimeError("a forked() block is for one use; call forked() again")
        _safe_fork.require()
        caller = sys._getframe(1)
        on_hazard, allow = self._policy
        policy: Any = None
        hazards: tuple[Hazard, ...] = ()
        if on_hazard != "ignore":
            from .._audit import _policy as policy

            hazards = policy.before(on_hazard, allow, _LEFT_ALONE)
        identity = _identity(self._name)
        self._fork = fork = Fork(identity.name)
        made: list[int] = []
        pipe: list[int] = []
        signals = Signals()
        signals.kept = True
        try:
            # A handler that raises must find the child's pid known here, or nobody would stop it,
            # and must not carry the child out of the block before it is in it. In C until the list
            # has the pipe: another thread may take a signal that is blocked here.
            signals.block()
            pipe.extend(chain.from_iterable(starmap(os.pipe, ((),))))
            self._report = Report(pipe[1])
            if _safe_fork.fork(
                caller,
                made,
                drop_connections=self._drop_connections,
                identity=identity,
                signals=signals,
            ):
                fork._watch(made[0], pipe[0])
                os.close(pipe.pop())
                if hazards:
                    policy.after(hazards)
            else:
                self._report.pid = os.getpid()
            signals.release()
        except BaseException as exc:
            if os.getpid() != fork._owner:
                end(exc, exc.__traceback__, self._report)
            try:
                try:
                    if made and not fork._fds:
                        # A handler has raised: another thread took its signal.
                        fork._watch(made[0], pipe[0])
                finally:
                    signals.release()
            finally:
                if fork._fds:
                    self._stop(fork)
                    fork._close()
                    del pipe[0]
                for fd in pipe:
                    os.close(fd)
            raise
        return fork

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        __tracebackhide__ = True
        fork = self._fork
        assert fork is not None
        if fork.is_child:
            end(exc, traceback, self._report)
        if os.getpid() != fork._owner:
            return False  # another child of the parent, forked inside the block: not its to wait
        try:
            if exc_type is not None:
                self._stop(fork)
                return False
            try:
                code = fork.wait()
            except ChildProcessError:
                raise
            except BaseException:
                self._stop(fork)
                raise
            if self._check and code:
                reason, _, text = fork._told().partition("\n")
                raise ChildFailedError(fork.pid, code, fork.name, reason, text)
        finally:
            fork._close()
        return False

    def _stop(self, fork: Fork) -> None:
        try:
            fork.terminate()
            fork.wait(self._grace)
        except (ChildProcessError, TimeoutError):
            pass  # it was reaped by other code, or does not heed SIGTERM
        finally:  # also at a second Ctrl-C: no more grace
            if fork.is_alive():
                with suppress(ChildProcessError):
                    fork.kill()
                    fork.wait()


_process_type: Any = None


def _identity(name: str | None) -> Any:
    """Return the process object that the child is to be known by: multiprocessing tells names."""
    global _process_type
    if _process_type is None:
        from multiprocessing.process import BaseProcess

        _process_type = type("ForkedProcess", (BaseProcess,), {})
    return _process_type(name=name)
