"""The one at-fork registration, its switch, and the rule of exactly once.

What happens at a fork, in order, and who does it:

1. Somebody calls ``os.fork()``: the program, a server, `safe_fork()`, `forked()`. The latter two
   put a `ForkEvent` in place first (`asking`): this fork gets the reset without `install()` too.
2. `_before`, in the parent. `who_forks` reads off the stack whether the child is about to exec (it
   is left alone) or is one of ``Process.start()``. stdout and stderr are flushed, then the signals
   are blocked. Each step notes what the child will not be able to see, and last of all we look at
   the stacks of the other threads.
3. The kernel forks; the at-fork hooks run, in the order of their registration.
4. `_after_in_parent`, also where the fork failed: what the notes changed is taken back, and the
   signals are restored.
5. `_after_in_child`: the steps make the process whole, among them multiprocessing's own entries of
   its after-fork registry. Then the program's signal mask is restored, and the program's own
   callbacks run: ordinary code, in a whole process. The child of ``Process.start()`` runs its
   registry itself, and with it this last part.
6. ``os.fork()`` returns, and handlers of signals that came in meanwhile run in the program's frame.

``os.register_at_fork`` has no way back, so the hooks are registered when forksafe is imported, and
look at the switch. While it is off a fork costs a few calls, which count forks and do nothing else.

Exactly once: `this_process.forks` counts the forks that led to this process, `_clean` is the count
(and the pid) at which it was last known whole. Neither alone will do. A pid recurs; and a fork made
in C runs no hook, so that it is not counted.
"""

from __future__ import annotations

import gc
import os
import sys
import threading  # noqa: F401 - for its own at-fork hook to be the earlier one: see below
from _thread import _count, get_ident

from . import _reset
from ._fork_event import ForkEvent, this_process
from ._fork_event._threads import forget_vanished_threads
from ._fork_event._who import EXEC, who_forks
from ._steps import STEPS, _watchdog
from ._steps._streams import flush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Literal

    from typing_extensions import TypedDict

    class Options(TypedDict):
        """What `install()` asks for, for every fork."""

        drop_connections: bool
        free_locks: bool


HAVE_FORK = hasattr(os, "fork") and hasattr(os, "register_at_fork")

_installed = False
_DEFAULTS: Options = {"drop_connections": False, "free_locks": True}
_options: Options = _DEFAULTS.copy()
# Looks for hazards before each fork, for install(on_hazard=...).
_watch: Callable[[], None] | None = None

# The innermost fork of each forking thread.
_events: dict[int, ForkEvent] = {}
_clean = (0, os.getpid())


def install(
    *,
    freeze: bool = False,
    on_hazard: Literal["ignore", "warn", "raise"] | None = None,
    allow: Iterable[str] = (),
    drop_connections: bool | None = None,
    free_locks: bool | None = None,
) -> None:
    """Give every later fork of this process the reset, whoever calls it.

    After this ``os.fork()``, ``os.forkpty()`` and ``pty.fork()`` behave as `safe_fork()`, in all
    code, and so do the forks of ``multiprocessing``. Children inherit it. Idempotent and
    thread-safe; a no-op on platforms without ``os.fork``. What an argument leaves out stays as an
    earlier `install()` set it.

    Args:
        freeze: Collect garbage and call ``gc.freeze()`` right before the first fork, and again
            before later ones while much has been made since, so that collections in the children
            leave the pages of the preloaded heap shared with the parent. For preloading servers.
        on_hazard: What to do at a fork where `audit()` finds something that needs action.
            ``"warn"``: one `ForkHazardWarning`, from the parent after the fork, once for the same
            things. ``"raise"``: the same, since nothing that a hook raises stops ``os.fork()``;
            see `safe_fork` for one that can be stopped. ``"ignore"``, at first: do not look.
        allow: Hazards that are accepted, as patterns: see `audit()`.
        drop_connections: Whether the child lets go of the connections that known libraries had in
            the parent, so that its first use of each connects anew: see docs/connections.md. False
            at first. Costs a look at the heap at each fork, where such a library is loaded.
        free_locks: Whether locks that another thread provably held at the fork are freed in the
            child: see docs/limits.md. True at first.

    Not affected: ``subprocess`` and other children that exec at once, and forks made in C that run
    no at-fork hooks (uWSGI: see `forksafe.uwsgi`).

    Raises:
        ValueError: `on_hazard` is none of the three, or a pattern names no kind of hazard.

    Source: ``os.register_at_fork`` in the Python documentation; fork(2).
    """
    global _installed, _freezes
    if on_hazard is not None and HAVE_FORK:
        from ._audit import _policy  # here, and not at the fork, where nothing may be imported

        watch(_policy.watcher(on_hazard, allow))
    _freezes = _freezes or (freeze and hasattr(gc, "freeze"))
    if drop_connections is not None:
        _options["drop_connections"] = drop_connections
    if free_locks is not None:
        _options["free_locks"] = free_locks
    _installed = HAVE_FORK
    _watchdog.wrap()
    if HAVE_FORK and _NEEDS_WRAPPER:
        os.forkpty = _forkpty


def watch(look: Callable[[], None] | None) -> None:
    """Have `look` called in the parent before each fork that the hook is on for; None: nothing."""
    global _watch
    _watch = look


def uninstall() -> None:
    """Undo `install()`: later forks are plain ones again. A no-op where it is not installed."""
    global _installed, _freezes
    _installed = _freezes = False
    _options.update(_DEFAULTS)
    watch(None)
    _watchdog.unwrap()
    if _NEEDS_WRAPPER and os.forkpty is _forkpty:
        os.forkpty = _os_forkpty
    for step in STEPS:
        step.leave()


def installed() -> bool:
    """Tell whether `install()` is in effect in this process."""
    return _installed


def drops_connections() -> bool:
    """Tell whether the children of this process's forks let go of its connections."""
    return _options["drop_connections"]


def after_fork_in_child() -> None:
    """Run the reset by hand, in a child whose fork ran no at-fork hooks.

    For servers that fork in C, such as uWSGI: call it in the child, before anything else. It does
    nothing where the reset already ran in this process since its fork, nor in a process that was
    never forked since forksafe was imported.
    """
    if _clean == (this_process.forks, os.getpid()):
        return
    if _clean[0] == this_process.forks:  # no hook ran, so neither did the one of threading
        forget_vanished_threads()
    _events.clear()
    event = ForkEvent(**_options)
    event.signals.block()
    _make_whole(event)


def asking(*, drop_connections: bool, **options: Any) -> ForkEvent | None:
    """Put the next fork of this thread in place; None where that was done already.

    Args:
        drop_connections: As `safe_fork()` has it.
        options: More of `ForkEvent`.
    """
    thread = get_ident()
    outer = _events.get(thread)
    if outer is not None and not outer.begun:
        return None  # a wrapper around os.fork that ends in safe_fork() again
    event = _events[thread] = ForkEvent(asked=True, outer=outer, **_options, **options)
    event.drop_connections |= drop_connections
    return event


def over(event: ForkEvent) -> None:
    """Forget a fork of this thread, which has come to its end or never began."""
    thread = get_ident()
    if _events.get(thread) is event:
        if event.outer is None:
            del _events[thread]
        else:
            _events[thread] = event.outer


def _before() -> None:
    """In the parent, before the fork."""
    thread = get_ident()
    event = _events.get(thread)
    if event is None or event.begun:
        if event is None and not _installed:
            return
        event = _events[thread] = ForkEvent(outer=event, **_options)
    event.begun = True
    event.left_alone = not (event.asked or _installed)
    if event.left_alone:
        return
    try:
        event.who = who_forks(sys._getframe().f_back)
        event.left_alone = event.who is EXEC
        if not event.left_alone:
            event.parent = os.getpid()
            if _watch is not None:
                _watch()  # before the next line, which hides objects from the audit
            if _freezes:
                _freeze()
            # The first counts threads that Python started, the second those that run it: a C
            # library can have its own, and call back.
            event.alone = not _count() and len(sys._current_frames()) < 2
            flush(event)
            if event.signals.program is None:
                event.signals.block(event.outer.signals if event.outer else None)
            _reset.note(event)
    except BaseException as exc:  # of a signal handler: the program has to get it
        if not event.signals.raised(exc):
            raise


_freezes = False  # what install(freeze=True) asks for
_frozen = 0


def _freeze() -> None:
    """Freeze the heap, so that a full collection in a worker does not copy all of its pages.

    The first fork need not be the one of a worker, so this is done again where the heap has grown
    by half since; and never for less, or a program that grows and forks would collect for ever.
    """
    global _frozen
    fresh = len(gc.get_objects())  # what is frozen is not among them
    if not _frozen or fresh > max(10_000, _frozen / 2):
        gc.collect()  # or garbage would be kept for ever
        gc.freeze()
        _frozen += fresh


def _meet_handlers() -> None:
    """In the parent, before `_after_in_parent`: a place for handlers that raise.

    Where there are other threads, one takes a signal that the forking one blocks. Its handler runs
    when the next Python function begins, and what it raises ends that function. If that were
    `_after_in_parent`, the signals would stay blocked, in this process and in all its children.
    """


def _after_in_parent() -> object:
    """In the parent, after the fork, also where it failed."""
    event = _events.get(get_ident())
    if event is None or not event.begun:
        return None
    try:
        over(event)
        if event.undo:
            _reset.undo(event)
    except BaseException as exc:  # of a handler, as above
        event.signals.raised(exc)
    if event.left_alone or event.signals.kept:
        return None
    return event.signals.release_in_hook(child=False)


def _after_in_child() -> object:
    """In the child, inside the fork."""
    this_process.forks += 1
    event = _events.get(get_ident())
    _events.clear()  # among them of threads that this process does not have
    if event is None or not event.begun:  # no `before` half: the fork was made in C
        if event is None and not _installed:
            return None
        event = event or ForkEvent(**_options)
    return None if event.left_alone else _make_whole(event)


def _make_whole(event: ForkEvent) -> object:
    global _clean
    _clean = (this_process.forks, os.getpid())
    return _reset.reset(event)


# In the child the hooks run in the order in which they were registered. That of `threading` forgets
# all threads but one, and so would those that a callback of the program has just started. For other
# modules `this_process.later_hooks` has noted whose hooks are the later ones.
if HAVE_FORK:
    os.register_at_fork(after_in_parent=_meet_handlers)
    os.register_at_fork(after_in_parent=_meet_handlers)  # two signals may have come
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
    _watchdog.wrap()


# PyPy's os.forkpty() runs no at-fork hooks, so there install() wraps it.
_os_forkpty: Any = getattr(os, "forkpty", None)
_NEEDS_WRAPPER = sys.implementation.name == "pypy" and _os_forkpty is not None


def _forkpty() -> tuple[int, int]:
    _before()
    pid = -1
    try:
        pid, fd = _os_forkpty()
    finally:
        if pid:
            _after_in_parent()
        else:
            _after_in_child()
    return pid, fd
