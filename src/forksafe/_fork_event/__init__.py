"""What one fork is, from whoever asks for it to the end of its last hook; and what a step is.

A step is one subsystem that a fork breaks, and how it is made whole. `Step.note` and `Step.reset`
run inside ``os.fork()``. Nothing is imported, logged or printed there, and no lock is waited for. A
subsystem that was never imported has no state. Private state of the standard library is touched
only after its shape was checked, so that a new Python that moves an attribute is reported, not
broken (`UnknownLayout`). What a step raises is reported (`tell`); other steps and the fork go on.
"""

from __future__ import annotations

import os
import sys
from itertools import chain

from ._signals import Signals, as_main_thread
from ._threads import Stacks
from ._typing import Any, Callable, Iterable, Never
from ._who import Launch


class ForkEvent(Signals):
    """What is known of one fork, and what its child is to be."""

    # install() sets these two here, for every fork.
    drop_connections: Any = None  # what lets go in the child of the parent's connections
    free_locks = True  # whether locks that another thread provably held are freed in the child

    asked = False  # whether safe_fork() or forked() asks for it
    outer: ForkEvent | None = None  # the fork of the same thread that this one interrupts
    identity: Any = None  # for forked(): the process object that the child is to be known by
    begun = False  # whether its `before` hook has run
    left_alone = False  # whether we do nothing: its child is about to exec, or nobody asked
    launch: Launch | None = None  # where ``Process.start()`` forks
    parent = 0  # the pid of the process that forks; 0 where no `before` hook ran
    beside_threads = True  # whether others run: then anything can change from note to fork
    unflushed: tuple[Any, ...] = ()  # standard streams that did not take what waited in them
    reentered: tuple[Any, ...] = ()  # standard streams that this very thread was writing to
    stacks: Stacks | None = None  # what the other threads, and this one, were in the middle of
    notes: list[Any] | None = None  # by number of a step in use: its `reset`, what it noted
    undo: tuple[Callable[[], None], ...] = ()  # takes back in the parent what the notes changed
    callbacks: tuple[dict[Any, Any], ...] = ()  # the program's own, for when the process is whole
    told: Callable[[], object] | None = None  # for who looked for hazards: runs in the parent
    raised: tuple[BaseException, ...] = ()  # what callbacks of the program raised
    deferred = False  # whether ``Process`` runs its registry, and the end of the reset, itself
    ended = False  # whether its last hook has done its work

    def finish(self) -> object:
        """Give the whole child its signals, and run its callbacks; the hook returns the result."""
        due = self.release_in_hook(True)
        if not any(self.callbacks):
            return due
        for module, attribute in this_process.later_hooks:
            found = getattr(sys.modules.get(module), attribute, None)
            free = getattr(found, "_at_fork_reinit", found)
            if callable(free):
                free()
            elif free is not None:  # the hook clears the old one: it gets a copy
                setattr(sys.modules[module], attribute, free.copy())
        callbacks = chain.from_iterable(entries.items() for entries in self.callbacks)
        running = True
        while running:
            callback: Any = None
            try:
                with as_main_thread:
                    for (_index, _ident, callback), reference in callbacks:
                        obj = reference()
                        if obj is not None:
                            callback(obj)
                running = False
            except BaseException as exc:
                if not self.is_of_handler(exc):
                    self.note_raised(exc, callback)
        self.callbacks = ()
        due = [due, self.release_in_hook(True)]
        if self.late is not None and not self.asked:  # PyPy: nobody is there to raise it
            tell(self.late, "forksafe, in a forked child: a signal handler")
        return due

    def note_raised(self, exc: BaseException, callback: Any) -> None:
        self.raised += (exc,)
        tell(exc, f"forksafe, in a forked child: after-fork callback {callback!r}")
        exc.__traceback__ = None  # its frames hold objects that the program lets go of


_HOOKS = (("logging", "_after_at_fork_child_reinit_locks"),
          ("concurrent.futures.thread", "_global_shutdown_lock"),
          ("concurrent.futures.thread", "_threads_queues"))  # fmt: skip


class _ThisProcess:
    """Tells this process from the ones that it was forked from."""

    forks = 0  # how many forks, as far as Python's hooks saw them, led here. A pid recurs
    # `forks`, and the pid, when this process was last known whole.
    whole: tuple[int, int] = (0, os.getpid())
    # What every reset replaces: tells an inherited object from what this process has made.
    mark: object = object()
    # At-fork hooks of the standard library that run after ours: the reset frees their locks, too.
    later_hooks = tuple(each for each in _HOOKS if each[0] not in sys.modules)


this_process = _ThisProcess()


class UnknownLayout(Exception):
    """Private state does not look as on any Python this was tested on; the step leaves it alone."""


def expect(condition: object, what: str) -> None:
    """Raise `UnknownLayout` naming `what` unless `condition` holds."""
    if not condition:
        raise UnknownLayout(what)


def mend_each(mend: Callable[[Any], object], things: Iterable[Any]) -> None:
    """Mend each thing, also after one that cannot be mended; raise the last failure in the end."""
    failure: Exception | None = None
    for thing in things:
        try:
            mend(thing)
        except (OSError, UnknownLayout) as exc:
            failure = exc
    if failure is not None:
        raise failure


NOTHING: Any = object()  # for `Step.note`
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE in CPython's object.h: not a static type in C
# What steps take from the child: it may have finalizers, which must not run inside the fork.
KEPT: list[object] = []


class Step:
    """One subsystem. Subclasses have one instance, in the list that states the order."""

    name: str = ""  # how last_reset() and the documentation call it
    modules: tuple[str, ...] = ()  # those that hold the state: while none is loaded, there is none
    # The step is skipped while all these are empty, or None, or not loaded: attributes of
    # modules, as "module:path.of.attributes", or of the `ForkEvent`; behind another colon, a key.
    looks: tuple[str, ...] = ()
    late = False  # whether `note` runs after the look at other threads, and lets none of them run

    def loaded(self) -> bool:
        return not self.modules or not sys.modules.keys().isdisjoint(self.modules)

    def note(self, fork: ForkEvent) -> Any:
        """Look, before the fork, at what the child cannot see; `NOTHING` spares the child the step.

        A note that changes the parent adds to `ForkEvent.undo` what takes the change back.
        """
        return None

    def reset(self, fork: ForkEvent, note: Any) -> bool | str:
        """Make the subsystem whole in the child; return what was done, or if anything was.

        `note` is what `Step.note` returned; None where it raised, or where no ``before`` half ran.
        """
        raise NotImplementedError

    def leave(self) -> None:
        """Take out of this process what the step has put there: for `uninstall()`."""


class _Raises:
    def __init__(self, exc: BaseException, what: str) -> None:
        self._exc, self._what = exc, what

    def __call__(self, *args: object) -> Never:
        raise self._exc

    def __repr__(self) -> str:
        return self._what


def tell(exc: BaseException, what: str) -> None:
    """Give an exception to ``sys.unraisablehook``, as one that was raised in `what`.

    A finalizer that raises leads there. PyPy runs finalizers late, but its hook takes any object.
    """
    if sys.implementation.name == "pypy":
        told: Any = _Raises(exc, what)
        told.exc_type, told.exc_value, told.exc_traceback = type(exc), exc, exc.__traceback__
        told.err_msg, told.extra_line, told.object = "Exception ignored in", "", what
        sys.unraisablehook(told)
    else:
        type("_Told", (), {"__del__": _Raises(exc, what)})()  # freed at once: the hook has it now
