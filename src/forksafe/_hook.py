"""The one at-fork registration, its switch, and the rule of exactly once.

``os.register_at_fork`` has no way back, so the three halves are registered when forksafe is
imported and look at the switch: `install()` turns it on for all forks, `safe_fork()` for one
fork of one thread. While it is off a fork costs three calls, which count forks and do nothing else.

Exactly once: `_forks` counts the forks that led to this process, `_clean` is the count (and the
pid) at which it was last known whole. Neither alone will do. A pid recurs; and a fork made in C
runs no hook, so that it is not counted.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident

from . import _origin, _reset, _signals
from ._forking import Forking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "HAVE_FORK",
    "after_fork_in_child",
    "armed",
    "install",
    "installed",
    "uninstall",
]

_installed = False
# Threads inside safe_fork(), each with the identity its child is to have (None: as it is).
armed: dict[int, Any] = {}
# Forks between `before` and `after`, by forking thread; None: not one to be reset.
_under_way: dict[int, Forking | None] = {}

_forks = 0
_clean = (0, os.getpid())

HAVE_FORK = hasattr(os, "fork") and hasattr(os, "register_at_fork")


def install() -> None:
    """Give every later fork of this process the reset, whoever calls it.

    After this ``os.fork()``, ``os.forkpty()`` and ``pty.fork()`` behave as `safe_fork()`, in all
    code, and so do the forks of ``multiprocessing``. Children inherit it. Idempotent and
    thread-safe; a no-op on platforms without ``os.fork``.

    Not affected: ``subprocess`` and ``os.posix_spawn``, whose children exec at once, and forks
    made in C that run no at-fork hooks (uWSGI: see `forksafe.uwsgi`).

    Source: ``os.register_at_fork`` in the Python documentation; fork(2).
    """
    global _installed
    _installed = HAVE_FORK
    _wrap_forkpty()


def uninstall() -> None:
    """Undo `install()`: later forks are plain ones again. A no-op where it is not installed."""
    global _installed
    _installed = False
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
    _forget_other_threads()
    _clean = (_forks, os.getpid())
    fork = Forking()
    fork.mask = _signals.current()
    _signals.block()
    try:
        _reset.reset(fork)
    finally:
        _signals.restore(fork.mask)


def _before() -> None:
    """In the parent, before the fork."""
    thread = get_ident()
    if not _installed and thread not in armed:
        _under_way[thread] = None
        return
    who = _origin.origin(sys._getframe(1))
    if who is _origin.EXEC:
        _under_way[thread] = None
        return
    fork = Forking(who, os.getpid(), armed.get(thread))
    fork.mask = _signals.current()
    # From here on the parent's half restores the mask, also if a handler raises in the next line.
    _under_way[thread] = fork
    _signals.block()
    _reset.note(fork)


def _after_in_parent() -> object:
    """In the parent, after the fork, also where it failed."""
    fork = _under_way.pop(get_ident(), None)
    if fork is None or fork.mask is None:
        return None
    _reset.undo(fork)
    return _signals.restore(fork.mask)


def _after_in_child() -> object:
    """In the child, inside the fork."""
    global _forks, _clean
    _forks += 1
    thread = get_ident()
    on = _installed or thread in armed
    try:
        fork = _under_way[thread]
    except KeyError:  # no `before` half: the fork was made in C
        fork = Forking() if on else None
    _forget_other_threads()
    if fork is None:
        return None
    _clean = (_forks, os.getpid())
    _reset.reset(fork)
    if fork.mask is None or fork.deferred:
        return None
    return _signals.restore(fork.mask)


def _forget_other_threads() -> None:
    armed.clear()
    _under_way.clear()


if HAVE_FORK:
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
