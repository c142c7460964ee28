"""The one at-fork registration, its switch, and the rule of exactly once.

What happens at a fork, in order, and who does it:

1. Somebody calls ``os.fork()``: the program, a server, `safe_fork()`, `forked()`. The latter two
   put a `ForkEvent` in place first (`asks`): this fork gets the reset without `install()` too.
2. `_before`, in the parent. `who_forks` reads off the stack whether the child is about to exec (it
   is left alone) or is one of ``Process.start()``. What `install()` was asked for comes first: the
   audit, the freeze. Streams are flushed, then signals are blocked. The steps note what the child
   will not be able to see. We look at the stacks of the other threads, and let none of them run
   from there on; last come the notes that go by that, and again if a thread has run all the same.
3. The kernel forks; the at-fork hooks run, in the order of their registration.
4. `_rest`, in the parent, also where the fork failed: what the notes changed is taken back, and the
   signals are restored. A second hook tells what the audit found, and has handlers of signals run.
5. `_after_in_child`: the steps make the process whole, among them multiprocessing's own entries of
   its after-fork registry. Then the program's signal mask is restored, and the program's own
   callbacks run. The child of ``Process.start()`` runs its registry itself, and so this last part.
6. ``os.fork()`` returns, and handlers of signals that came in meanwhile run in the program's frame.

``os.register_at_fork`` has no way back, so the hooks are registered when forksafe is imported. An
exception that a signal handler raises as a Python hook begins is lost, so the parent's hooks are in
C, and call what `_Thread` has: nothing while the switch is off; else `_before`, and a generator
that waits inside of ``try`` for the end. Exactly once: `this_process.forks` counts the forks that
led to this process; `this_process.whole` is that count, and the pid, when the process was last
known whole. We need both: a pid recurs, and a fork made in C runs no hook that could count it.
"""

from __future__ import annotations

import gc
import os
import sys
import threading  # noqa: F401 - so that its own at-fork hook is registered first: see below
from _operator import methodcaller
from _thread import _count
from types import MethodType

from ._fork_event import KEPT, ForkEvent, _threads, _with_bodies, tell, this_process
from ._fork_event._signals import c_thread
from ._fork_event._threads import current_frames, forget_vanished_threads
from ._fork_event._typing import Any, Callable, Iterable, Iterator, OnHazard
from ._fork_event._who import EXEC, who_forks
from ._reset import note, reset
from ._steps import STEPS, _watchdog
from ._steps._connections import drops
from ._steps._streams import flush

HAVE_FORK = hasattr(os, "fork") and hasattr(os, "register_at_fork")
_installed = False
_freezes = False
_frozen = 0  # objects, by `_freeze`
_watch: Any = None  # looks for hazards before each fork, and returns what tells of them after it


class _Thread(c_thread._local):  # type: ignore[misc]
    """What the parent's hooks do at the forks of one thread; ``tuple`` does nothing, in C."""

    event: ForkEvent | None = None  # the innermost fork under way
    before: Any = tuple
    rest: Any = tuple
    handlers: Any = tuple  # makes the handlers of signals due


thread = _Thread()


def install(*, freeze: bool = False, on_hazard: OnHazard | None = None, allow: Iterable[str] = (),
            drop_connections: bool | None = None,
            free_locks: bool | None = None) -> None:  # fmt: skip
    """Give every later fork of this process the reset, whoever calls it.

    That is ``os.fork()``, ``os.forkpty()`` and ``pty.fork()``, in all code, children's included.
    Not affected: children that exec at once, as those of ``subprocess``; and forks made in C that
    run no at-fork hooks (uWSGI: see `forksafe.uwsgi`). Idempotent and thread-safe; a no-op on
    platforms without ``os.fork``. What is left out stays as an earlier `install()` set it.

    Args:
        freeze: Collect garbage and call ``gc.freeze()`` before the first fork, and before later
            ones where much has been made since, so that collections in the children leave the
            pages of the preloaded heap shared with the parent. For preloading servers.
        on_hazard: What to do at a fork where `audit()` finds something that needs action. At first
            ``"ignore"``: do not look. ``"warn"``: one `ForkHazardWarning`, from the parent after
            the fork, once for the same things. ``"raise"``: as ``"warn"``, since ``os.fork()``
            goes on whatever a hook raises; ``safe_fork(on_hazard="raise")`` does not fork.
        allow: Hazards that `on_hazard` accepts, as patterns: see `audit()`.
        drop_connections: Whether the child lets go of the connections that known libraries had in
            the parent, so that its first use of each connects anew (docs/connections.md). At first
            False. Costs a look at the heap at each fork, where such a library is loaded.
        free_locks: Whether the child frees locks that another thread provably held
            (docs/held-locks.md). At first True.

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
        ForkEvent.drop_connections = drops(drop_connections)
    if free_locks is not None:
        ForkEvent.free_locks = free_locks
    if HAVE_FORK:
        _installed, _Thread.before = True, staticmethod(_before)
    _with_bodies.load()
    _watchdog.wrap()


def watch(look: Callable[[], Any] | None) -> None:
    """Have `look` called in the parent before each fork that the hook is on for; None: nothing."""
    global _watch
    _watch = look


def uninstall() -> None:
    """Undo `install()`: ``os.fork()`` makes plain forks again. It may be called at any time."""
    global _installed, _freezes
    _installed = _freezes = False
    _Thread.before = tuple
    ForkEvent.drop_connections, ForkEvent.free_locks = None, True
    watch(None)
    for step in STEPS:
        step.leave()


def installed() -> bool:
    """Tell whether `install()` is in effect in this process."""
    return _installed


def after_fork_in_child() -> None:
    """Run the reset by hand, in a child that was forked in C and ran no at-fork hooks (uWSGI).

    Call it before anything else. It does nothing where the reset already ran in this process since
    its fork, or where no fork has happened since forksafe was imported.
    """
    if this_process.whole == (this_process.forks, os.getpid()):
        return
    if this_process.whole[0] == this_process.forks:  # no hook ran, nor the one of threading
        forget_vanished_threads()
    thread.event = None
    event = ForkEvent()
    event.block()
    reset(event)


def asks(event: ForkEvent) -> Callable[[], object] | None:
    """Make `event` this thread's next fork; return None where another event already waits for it.

    Else return what the caller must call after the fork if `ForkEvent.ended` is false then.
    """
    if thread.event is not None and not thread.event.begun:
        return None  # a wrapper around os.fork that ends in safe_fork() again
    event.asked = True
    thread.before = _before
    return _begin(event)


def _begin(event: ForkEvent) -> Callable[[], object]:
    event.outer = thread.event
    rest = _rest(event)
    next(rest)
    thread.event, thread.rest = event, rest.__next__
    return rest.__next__


def _before() -> None:
    event = thread.event
    if event is None or event.begun:
        if event is None and not _installed:
            return
        event = ForkEvent()
        _begin(event)
    event.begun = True
    event.left_alone = not (event.asked or _installed)
    if event.left_alone:
        return
    for _ in range(9):  # a signal handler may cut an attempt off
        try:
            if event.identity is None:  # no ``Process`` enters a block of forked()
                event.launch = who_forks(sys._getframe().f_back)
            event.left_alone = event.launch is EXEC
            if not event.left_alone:
                event.parent, event.stacks = os.getpid(), None
                if _watch is not None:
                    event.told = _watch()  # first: to freeze hides objects from it
                if _freezes:
                    _freeze()
                # Other threads: those that Python started, and those in C that run Python code.
                event.beside_threads = bool(_count()) or len(current_frames()) > 1
                if event.beside_threads:
                    if _threads.comes_last is None:
                        _threads.look_behind(_hook)
                    event.undo += (_threads.end_turn,)
                    _threads.begin_turn()
                flush(event)
                if event.mask is None:
                    event.block(event.outer)
                note(event)
            return
        except BaseException as exc:  # the program has to get it
            if not event.is_of_handler(exc):
                raise


def _freeze() -> None:
    """Freeze the heap; again where it has grown by half: the first fork need not be a worker's."""
    global _frozen
    fresh = len(gc.get_objects())  # what is frozen is not among them
    if not _frozen or fresh > max(10_000, _frozen / 2):
        gc.collect()  # or garbage would be kept for ever
        gc.freeze()
        _frozen += fresh


def _rest(event: ForkEvent) -> Iterator[None]:
    """Do what is left to do in the parent: a generator, which waits in ``try`` for its hook."""
    outer = thread.event, thread.rest
    waited = False
    while True:
        try:
            try:
                if not waited:
                    waited = True
                    yield
                while event.undo:
                    event.undo[0]()
                    event.undo = event.undo[1:]
                thread.event, thread.rest = outer
                event.ended = True
                arrive = tuple if event.keeps_mask else event.release_in_hook(False).clear
                thread.handlers = _tell_first(event.told, arrive) if event.told else arrive
                break
            except GeneratorExit:
                return
            except BaseException as exc:
                if not event.is_of_handler(exc):
                    tell(exc, f"forksafe, after a fork: {event.undo[:1]!r}")
                    event.undo = event.undo[1:]
        except BaseException as exc:  # of the handler of a second signal
            event.is_of_handler(exc)
    yield


def _tell_first(told: Callable[[], object], arrive: Callable[[], object]) -> Callable[[], None]:
    def handlers() -> None:
        thread.handlers = tuple
        told()
        arrive()

    return handlers


def _after_in_child() -> object:
    this_process.forks += 1
    event = thread.event
    thread.event = None
    if event is None:
        if not _installed:
            return None
        event = ForkEvent()  # no `before` half: the fork was made in C
    else:
        KEPT.append(thread.rest)
        thread.rest = tuple
        event.caught, event.late = (), None  # the parent's
    return None if event.left_alone else reset(event)


_hook = MethodType(methodcaller("before"), thread)
# In the child hooks run as they were registered; that of `threading` forgets all other threads.
if HAVE_FORK:
    os.register_at_fork(
        before=_hook,
        after_in_parent=MethodType(methodcaller("rest"), thread),
        after_in_child=_after_in_child,
    )
    os.register_at_fork(after_in_parent=MethodType(methodcaller("handlers"), thread))
    _watchdog.wrap()
