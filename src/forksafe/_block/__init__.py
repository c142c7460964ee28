"""`forked()`: a fork as a block, which the child never leaves.

In the parent no way out of the block leaves a zombie or an orphan. No ``with`` statement can guard
one door: a ``yield`` or ``await`` inside the block leaves the block without ending it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from itertools import chain, starmap
from multiprocessing.process import BaseProcess

from .. import _safe_fork
from .._fork_event import ForkEvent
from .._fork_event._typing import Any, Iterable, OnHazard
from .._steps._connections import drops
from ..exceptions import ChildFailedError
from ._child_end import Report, end
from ._handle import Fork


class forked:
    """Fork for the length of a ``with`` block. Both processes run it; the child never leaves it.

    ::

        with forked() as fork:
            if fork.is_child:
                work()        # leaving the block, by any door, ends this process
        # only the parent comes here; the child is reaped

    The child's exit code is 0 at the end of the block, that of a ``SystemExit`` as the interpreter
    has it, 130 after ``KeyboardInterrupt``, and 1 after any other exception, with its traceback on
    stderr. First the child finishes what it made itself: it joins its non-daemon threads, runs its
    exit handlers and multiprocessing finalizers, shuts down its handlers of ``logging``, completes
    the files that it left open, runs ``__del__()`` of its other objects and the ``finally`` of its
    generators, and flushes stdout and stderr. coverage.py saves its data, where each process has a
    file of its own. Nothing of the parent's is finished: the child must flush what it writes into
    a file object of the parent's. On PyPy, on free-threaded builds, on 3.14.0 to 3.14.4 and after
    ``gc.freeze()``, of objects only files are completed, and only those that the child opened.

    The block yields a `Fork`, and is for one use. When the parent leaves it normally, it waits for
    the child. When the parent leaves it by an exception, the child gets SIGTERM, after `grace`
    seconds SIGKILL, and is reaped; then the exception goes on.

    Args:
        name: The child's name, as ``multiprocessing.current_process().name`` and so log records
            show it. Default: ``ForkedProcess-N``.
        check: Raise unless the child's exit code is 0.
        grace: Seconds between SIGTERM and SIGKILL.
        on_hazard: As for `safe_fork()`.
        allow: Hazards that are accepted, as patterns: see `audit()`.
        drop_connections: As for `install()`.

    Raises:
        ChildFailedError: At the end, if `check` is true and the child failed; with its traceback.
        ChildProcessError: At the end: other code reaped the child.
        NotImplementedError, OSError, UnsafeForkError, ValueError: As `safe_fork()` raises them.

    Source: fork(2), waitid(2), pidfd_open(2); ``multiprocessing.popen_fork``.
    """

    _fork: Any = None

    def __init__(self, *, name: str | None = None, check: bool = True, grace: float = 5.0,
                 on_hazard: OnHazard = "ignore", allow: Iterable[str] = (),
                 drop_connections: bool = False) -> None:  # fmt: skip
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str or None, not {name!r}")
        if not (hasattr(grace, "__float__") and grace >= 0):
            raise ValueError(f"grace must be a number of seconds, 0 or more, not {grace!r}")
        if on_hazard not in ("ignore", "warn", "raise"):
            raise ValueError(f"on_hazard must be ignore, warn or raise, not {on_hazard!r}")
        self._name, self._check, self._grace = name, check, grace
        self._on_hazard, self._allow, self._drops = on_hazard, allow, drops(drop_connections)

    def __enter__(self) -> Fork:
        __tracebackhide__ = True
        if self._fork is not None:
            raise RuntimeError("a forked() block is for one use; call forked() again")
        hazards: tuple[Any, ...] = ()
        policy: Any = None
        if self._on_hazard != "ignore":
            from .._audit import _policy as policy

            # The child leaves its parent's temporary files alone: it ends by os._exit().
            how = ("temporary-file",), bool(self._drops)
            hazards = policy.before(self._on_hazard, self._allow, *how)
        identity: Any = BaseProcess(name=self._name or "ForkedProcess")
        if not self._name:
            identity._name += f"-{':'.join(map(str, identity._identity))}"
        fork = self._fork = Fork(identity._name)
        made: list[int] = []
        pipe: list[int] = []
        event = ForkEvent()
        # Kept until the block ends: to free it while the child lives would copy the pages it is on.
        event.keeps_mask, event.identity = True, identity
        self._identity = identity
        event.drop_connections = event.drop_connections or self._drops
        try:
            # If a handler raises, we must know the child, or nobody would stop it; and it must not
            # get out of the block. In C, since another thread may take a blocked signal.
            event.block()
            pipe.extend(chain.from_iterable(starmap(os.pipe, ((),))))
            self._report = Report(pipe[1])
            if _safe_fork.fork(sys._getframe(1), event, made):
                fork._watch(made[0], pipe[0])
                list(map(os.close, map(pipe.pop, (1,))))  # in C, as above
                if hazards:
                    policy.after(hazards)
            else:
                self._report.pid = os.getpid()
            if event.mask is not None:
                event.restore_mask()
        except BaseException as exc:
            if os.getpid() != fork._owner:
                end(exc, self._report)
            try:
                if made and not fork._fds:
                    # A handler has raised: another thread took its signal.
                    fork._watch(made[0], pipe[0])
                event.restore_mask()
            finally:
                if fork._fds:
                    self._let_go(fork)
                    del pipe[0]
                for fd in pipe:
                    os.close(fd)
            raise
        return fork

    def __exit__(self, kind: object, exc: BaseException | None, *rest: object) -> None:
        try:  # up to 3.10 no handler runs ahead of this; since 3.11 one can, ahead of any line
            __tracebackhide__ = True
            fork = self._fork
            if fork.is_child:
                end(exc, self._report)
            if os.getpid() == fork._owner:  # else another child of the parent, forked in the block
                code = fork._wait(None) if exc is None else 0
                if self._check and code:
                    reason, _, text = fork._told().partition("\n")
                    raise ChildFailedError(fork.pid, code, fork.name, reason, text)
        except BaseException as raised:
            if self._fork.is_child:
                end(raised, self._report)
            raise
        finally:
            try:
                self._let_go(self._fork)
            finally:
                if self._fork._fds:  # a handler has cut that off
                    self._let_go(self._fork)

    def _let_go(self, fork: Fork) -> None:
        """Stop the child, if it still runs, and close the handle."""
        if os.getpid() != fork._owner:
            return
        try:
            if fork._exitcode is None and fork.is_alive():
                with suppress(ChildProcessError, TimeoutError):  # reaped by others, or heedless
                    fork.terminate()
                    fork.wait(self._grace)
        finally:  # also at a second Ctrl-C: no more grace
            try:
                if fork._exitcode is None and fork.is_alive():
                    with suppress(ChildProcessError):
                        fork.kill()
                        fork.wait()
            finally:
                # In C: no handler runs between pop() and close().
                list(map(os.close, map(fork._fds.pop, [-1] * len(fork._fds))))
