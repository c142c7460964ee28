"""`safe_fork()`: the drop-in for ``os.fork``."""

from __future__ import annotations

import os
import sys
from _thread import _count
from itertools import starmap
from types import FrameType, FunctionType

from ._fork_event import ForkEvent, _threads, _with_bodies
from ._fork_event._typing import Any, Iterable, OnHazard
from ._hook import HAVE_FORK, asks, thread
from ._steps._connections import drops

_os_fork: Any = getattr(os, "fork", None)


def safe_fork(*, on_hazard: OnHazard = "ignore", allow: Iterable[str] = (),
              drop_connections: bool = False) -> int:  # fmt: skip
    """Fork this process, with a child as whole as one made by ``multiprocessing.Process``.

    A drop-in for ``os.fork``; ``os.fork = forksafe.safe_fork`` works.

    Args:
        on_hazard: As for `install()`, but ``"raise"`` does not fork.
        allow: Hazards that are accepted, as patterns: see `audit()`.
        drop_connections: As for `install()`.

    Returns:
        0 in the child, the child's pid in the parent.

    Raises:
        OSError: The kernel refuses to fork (EAGAIN, ENOMEM).
        NotImplementedError: This platform has no ``os.fork``.
        UnsafeForkError: There is something that needs action, and `on_hazard` is ``"raise"``; or
            ``"warn"``, and the warning filters turn the warning into an error.
        ValueError: `on_hazard` is none of the three, or a pattern names no kind of hazard.

    Source: fork(2); cpython gh-101320.
    """
    event = ForkEvent()
    if drop_connections:
        event.drop_connections = drops(True)
    if on_hazard == "ignore":
        return fork(sys._getframe().f_back, event)
    from ._audit import _policy

    hazards = _policy.before(on_hazard, allow, drops=drop_connections)
    pid = fork(sys._getframe().f_back, event)
    if pid:
        _policy.after(hazards)
    return pid


def fork(caller: FrameType | None, event: ForkEvent, made: list[int] | None = None) -> int:
    """Fork with the reset, in the name of `caller`; `made` takes the pid, whatever is raised."""
    __tracebackhide__ = True
    if not HAVE_FORK:
        raise NotImplementedError("this platform has no os.fork(): use multiprocessing instead")
    if sys.version_info >= (3, 15) and caller is not None:
        _warn_before(caller)
    if _with_bodies.spans is None and (_count() or len(_threads.current_frames()) > 1):
        try:
            _with_bodies.load()
        except (ImportError, OSError, AttributeError):
            pass  # no descriptor is left, or a handler forks in here: those locks stay
    rest = asks(event)
    if rest is None:
        return int(_os_fork())
    # Looked up now: gevent and others replace os.fork, and their part must be done too.
    function: Any = _os_fork if os.fork is safe_fork else os.fork
    try:
        pid: Any
        arguments: tuple[Any, ...] = ()
        if made is not None:  # in C until `made` has the pid: no handler runs in between
            function, arguments = made.extend, (starmap(function, ((),)),)
        if sys.version_info >= (3, 12) and _count() and caller is not None:
            pid = _in_the_name_of(caller)(function, arguments)
        else:
            pid = function(*arguments)
        if event.late is not None:
            raise event.late
        return made[0] if made else int(pid)
    finally:
        if not (event.ended or event.deferred):  # the hooks have not run
            rest()
            thread.handlers()


_call: Any = lambda function, args: function(*args)  # noqa: E731 - it has just one line


def _in_the_name_of(caller: FrameType) -> Any:
    """Return `_call` at the line of `caller`: ``os.fork()`` names it in a warning since 3.12."""
    code, line = caller.f_code, caller.f_lineno or 0
    names = {"co_filename": code.co_filename, "co_name": code.co_name}
    made = _call.__code__.replace(co_firstlineno=line, **names)
    return FunctionType(made, caller.f_globals)


def _warn_before(caller: FrameType) -> None:
    """Raise this warning before the fork, where the filters turn it into an exception.

    Since 3.15 ``os.fork()`` raises it after the fork: the child runs, and nobody knows its pid.
    """
    __tracebackhide__ = True
    filters: Any = getattr(sys.modules.get("warnings"), "_get_filters", tuple)
    if not any(action == "error" for action, *_ in filters()):
        return
    try:
        threads = len(os.listdir("/proc/self/task"))  # as CPython counts: not only Python's
    except OSError:
        threads = 1 + _count()
    from ._audit._policy import would_raise

    text = f"This process (pid={os.getpid()}) is multi-threaded, use of fork() may lead to "
    text += "deadlocks in the child."
    if threads > 1 and would_raise(text, DeprecationWarning, caller):
        raise DeprecationWarning(text)
