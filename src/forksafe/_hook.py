"""The one at-fork registration, its switch, and the rule of exactly once.

``os.register_at_fork`` has no way back, so the parts are registered when forksafe is imported and
look at the switch: `install()` turns it on for all forks, `safe_fork()` for one fork of one thread.
While it is off a fork costs a few calls, which count forks and do nothing else.

Exactly once: `_forks` counts the forks that led to this process, `_clean` is the count (and the
pid) at which it was last known whole. Neither alone will do. A pid recurs; and a fork made in C
runs no hook, so that it is not counted.
"""

from __future__ import annotations

import os
import sys
import threading  # noqa: F401 - for its own at-fork hook to be the earlier one: see below
from _thread import _count, get_ident

from ._fork_event import Forking, _freeze, _signals
from ._fork_event import _later_hooks as _  # noqa: F401 - it notes which hooks come after these
from ._fork_event import _who as _origin
from ._fork_event._signals import BLOCK, DEFERRED, sigmask
from ._fork_event._vanished import forget_vanished_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Literal


class Request:
    """One fork asked for by `safe_fork()` or `forked()`.

    Attributes:
        identity: The process object that the child is to be known by; None: it stays as it is.
        mask: The signal mask that the one who asked restores. It can do so behind all at-fork
            hooks, where an exception of a handler is not dropped. Set by the hook, which blocks
            the signals, unless the one who asked has done that already.
    """

    # Defaults on the class, as `Forking` has them.
    identity: Any = None
    mask: Iterable[int] | None = None


_installed = False
# Looks for hazards before each fork, for install(on_hazard=...).
_watch: Callable[[], None] | None = None
# Threads inside safe_fork(), each with what it asks for.
armed: dict[int, Request] = {}
# Forks between `before` and `after`, by forking thread; None: not one to be reset.
_under_way: dict[int, Forking | None] = {}

_forks = 0
_clean = (0, os.getpid())

# The module that runs the steps: loaded, with all of them, when it is known that there is a use.
_reset: Any = None

HAVE_FORK = hasattr(os, "fork") and hasattr(os, "register_at_fork")


def install(
    *,
    freeze: bool = False,
    on_hazard: Literal["ignore", "warn", "raise"] | None = None,
    allow: Iterable[str] = (),
) -> None:
    """Give every later fork of this process the reset, whoever calls it.

    After this ``os.fork()``, ``os.forkpty()`` and ``pty.fork()`` behave as `safe_fork()`, in all
    code, and so do the forks of ``multiprocessing``. Children inherit it. Idempotent and
    thread-safe; a no-op on platforms without ``os.fork``.

    Args:
        freeze: Collect garbage and call ``gc.freeze()``, once, right before the first fork, so that
            collections in the children leave the pages of the preloaded heap shared with the
            parent. For preloading servers; not for programs that fork early and live on.
        on_hazard: What to do at a fork where `audit()` finds something that needs action.
            ``"warn"``: one `ForkHazardWarning`, from the parent after the fork, once for the same
            things. ``"raise"``: the same, since nothing that a hook raises stops ``os.fork()``;
            see `safe_fork` for one that can be stopped. ``"ignore"``: do not look. Default: as an
            earlier `install()` said, and ``"ignore"`` at first.
        allow: Hazards that are accepted, as patterns: see `audit()`.

    Not affected: ``subprocess`` and ``os.posix_spawn``, whose children exec at once, and forks
    made in C that run no at-fork hooks (uWSGI: see `forksafe.uwsgi`).

    Source: ``os.register_at_fork`` in the Python documentation; fork(2).
    """
    global _installed
    if on_hazard is not None and HAVE_FORK:
        from ._audit import _policy

        watch(_policy.watcher(on_hazard, allow))
    if freeze:
        _freeze.request()
    load()
    _installed = HAVE_FORK
    _wrap_forkpty()


def load() -> None:
    """Load the steps: before the fork, where anything may be imported."""
    global _reset
    if _reset is None:
        from . import _reset as reset

        _reset = reset


def watch(look: Callable[[], None] | None) -> None:
    """Have `look` called in the parent before each fork that the hook is on for; None: nothing."""
    global _watch
    _watch = look


def uninstall() -> None:
    """Undo `install()`: later forks are plain ones again. A no-op where it is not installed."""
    global _installed
    _installed = False
    watch(None)
    _unwrap_forkpty()


def installed() -> bool:
    """Tell whether `install()` is in effect in this process."""
    return _installed


def after_fork_in_child() -> None:
    """Run the reset by hand, in a child whose fork ran no at-fork hooks.

    For servers that fork in C, such as uWSGI: call it in the child, before anything else. It does
    nothing where the reset already ran in this process since its fork, nor in a process that was
    never forked since forksafe was imported.
    """
    global _clean
    if _clean == (_forks, os.getpid()):
        return
    if _clean[0] == _forks:  # no hook ran, so neither did the one of threading
        forget_vanished_threads()
    load()
    armed.clear()
    _under_way.clear()
    _clean = (_forks, os.getpid())
    mask = sigmask(BLOCK, ())
    sigmask(BLOCK, DEFERRED)
    try:
        _reset.reset(Forking())
    finally:
        _signals.set_mask(mask)


def _before() -> None:
    """In the parent, before the fork."""
    thread = get_ident()
    request = armed.get(thread)
    if not _installed and request is None:
        _under_way[thread] = None
        return
    who = _origin.origin(sys._getframe(1))
    if who is _origin.EXEC:
        _under_way[thread] = None
        return
    if _watch is not None:
        _watch()  # before the next line, which hides objects from the audit
    if _freeze.requested:
        _freeze.freeze()
    fork = Forking()
    fork.origin = who
    fork.parent = os.getpid()
    # The first counts threads that Python started, the second those that run it: a C library can
    # have its own, and call back.
    fork.alone = not _count() and len(sys._current_frames()) < 2
    if request is not None:
        fork.identity = request.identity
        fork.mask = request.mask
    if fork.mask is None:
        # What is there of this thread is a fork that a handler interrupted, in one of its hooks:
        # other threads take the signals that this one blocks, and it runs their handlers. The
        # program's mask is the one of that fork.
        other = _under_way.get(thread)
        fork.mask = sigmask(BLOCK, ()) if other is None or other.mask is None else other.mask
        if request is not None:
            request.mask = fork.mask
        # From here on the mask is restored behind the fork, also if a handler raises in the last
        # line of these.
        _under_way[thread] = fork
        sigmask(BLOCK, DEFERRED)
    else:
        _under_way[thread] = fork
    _reset.note(fork)


def _meet_handlers() -> None:
    """In the parent, before `_after_in_parent`: a place for handlers that raise.

    Another thread has taken a signal that the forking one blocks. Its handler runs when the next
    Python function begins, and what it raises ends that function: let it be this one.
    """


def _after_in_parent() -> object:
    """In the parent, after the fork, also where it failed."""
    thread = get_ident()
    fork = _under_way.get(thread)
    mask = None if fork is None else fork.mask
    try:
        if fork is not None and fork.undo:
            _reset.undo(fork)
        _under_way.pop(thread, None)
        return None if mask is None or thread in armed else _signals.restore(mask)
    except BaseException:  # of a handler, as above
        if mask is not None and thread not in armed:
            _signals.sigmask(_signals.SETMASK, mask)  # which sets it first, whatever it raises
        raise


def _after_in_child() -> object:
    """In the child, inside the fork."""
    global _forks, _clean
    _forks += 1
    thread = get_ident()
    if thread in _under_way:
        fork = _under_way[thread]
    else:  # no `before` half: the fork was made in C
        fork = Forking() if _installed or thread in armed else None
    request = armed.get(thread)
    armed.clear()
    _under_way.clear()  # of threads that this process does not have
    if fork is None:
        if _reset is not None:
            _reset.forget_plans()
        return None
    _clean = (_forks, os.getpid())
    _reset.reset(fork)
    if request is None:
        return None if fork.mask is None or fork.deferred else _signals.restore(fork.mask)
    if fork.deferred:
        request.mask = None
    return None


# In the child the hooks run in the order in which they were registered. That of `threading` forgets
# all threads but one, and so would those that a callback of the program has just started. For other
# modules `_later_hooks` has noted, when it was imported, whose hooks are the later ones.
if HAVE_FORK:
    os.register_at_fork(after_in_parent=_meet_handlers)
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )


# PyPy's os.forkpty() runs no at-fork hooks, so there install() wraps it. The wrapper runs only the
# halves that did not run by themselves, should a later PyPy run them.

_os_forkpty = getattr(os, "forkpty", None)
_NEEDS_WRAPPER = sys.implementation.name == "pypy" and _os_forkpty is not None


def _forkpty() -> tuple[int, int]:
    assert _os_forkpty is not None
    count = _forks
    _before()
    pid = -1
    try:
        pid, fd = _os_forkpty()
    finally:
        if pid != 0:
            _after_in_parent()
    if pid == 0 and _forks == count:
        _after_in_child()
    return pid, fd


def _wrap_forkpty() -> None:
    if _NEEDS_WRAPPER and _installed:
        os.forkpty = _forkpty


def _unwrap_forkpty() -> None:
    if _NEEDS_WRAPPER and os.forkpty is _forkpty:
        assert _os_forkpty is not None
        os.forkpty = _os_forkpty
