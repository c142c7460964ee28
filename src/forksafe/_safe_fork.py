"""`safe_fork()`: the drop-in for ``os.fork``."""

from __future__ import annotations

import os
import sys
from _thread import _count
from itertools import starmap
from types import FrameType, FunctionType

from . import _hook
from ._fork_event import _with_bodies
from ._fork_event._typing import Any, Iterable, OnHazard

_os_fork: Any = getattr(os, "fork", None)


def safe_fork(
    *,
    on_hazard: OnHazard = "ignore",
    allow: Iterable[str] = (),
    drop_connections: bool = False,
) -> int:
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
    caller = sys._getframe().f_back
    if on_hazard == "ignore":
        return fork(caller, [], drop_connections=drop_connections)
    from ._audit import _policy

    hazards = _policy.before(on_hazard, allow, drops=drop_connections)
    pid = fork(caller, [], drop_connections=drop_connections)
    if pid:
        _policy.after(hazards)
    return pid


def fork(caller: FrameType | None, made: list[int], **options: Any) -> int:
    """Fork with the reset, in the name of `caller`; `options` are those of `ForkEvent`.

    `made` takes what the fork returns, also where a signal handler raises in here.
    """
    __tracebackhide__ = True
    if not _hook.HAVE_FORK:
        raise NotImplementedError("this platform has no os.fork(): use multiprocessing instead")
    if sys.version_info >= (3, 15) and caller is not None:
        _warn_before(caller)
    if _with_bodies.spans is None and _count():
        try:
            _with_bodies.load()
        except (ImportError, OSError):
            pass  # no descriptor is left: the locks of other threads stay as they are
    event = _hook.asking(**options)
    if event is None:
        return int(_os_fork())
    # Looked up now: gevent and others replace os.fork, and their part must be done too.
    function = _os_fork if os.fork is safe_fork else os.fork
    try:
        # In C from the fork until the list has the pid: no handler runs in between.
        named = sys.version_info >= (3, 12) and _count() and caller
        extend = _in_the_name_of(named) if named else list.extend
        extend(made, starmap(function, ((),)))
        if event.signals.late is not None:
            raise event.signals.late
        return made[0]
    finally:
        if not event.ended:  # the kernel has refused, or handlers have raised in all of the hooks
            try:
                _hook.over(event)
            finally:
                if not event.signals.kept:
                    event.signals.release()


def _in_the_name_of(caller: FrameType) -> Any:
    """Return a function that extends a list, and runs at the line of `caller`.

    Since 3.12 ``os.fork()`` warns of a fork beside threads, and names the line that calls it.
    """
    extend: Any = lambda made, forks: made.extend(forks)  # noqa: E731 - it has just one line
    code = extend.__code__.replace(
        co_filename=caller.f_code.co_filename,
        co_name=caller.f_code.co_name,
        co_firstlineno=caller.f_lineno or 0,
    )
    return FunctionType(code, caller.f_globals)


def _warn_before(caller: FrameType) -> None:
    """Raise that warning before the fork, where the filters make an exception of it.

    Since 3.15 ``os.fork()`` raises it behind the fork: the child runs, and nobody knows its pid.
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
