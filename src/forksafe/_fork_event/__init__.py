"""One fork, as one object: from whoever asks for it to the end of its last hook."""

from __future__ import annotations

import os
import sys

from ._signals import Signals
from ._threads import Stacks
from ._typing import Any, Callable
from ._who import PLAIN, Who


class ForkEvent:
    """What is known of one fork, and what its child is to be."""

    # install() sets these two here, for every fork.
    drop_connections = False  # whether the child lets go of the parent's connections
    free_locks = True  # whether locks that another thread provably held are freed in the child

    asked = False  # whether safe_fork() or forked() asked for it
    outer: ForkEvent | None = None  # the fork of the same thread that this one interrupts
    identity: Any = None  # for forked(): the process object that the child is to be known by
    begun = False  # whether its `before` hook has run
    left_alone = False  # whether it is none of ours: its child is about to exec, or nobody asked
    who: Who = PLAIN
    parent = 0  # the pid of the process that forks; 0 where no `before` hook ran
    alone = False  # whether this is the only thread: nothing changes from note to fork then
    unflushed: tuple[Any, ...] = ()  # standard streams that did not take what waited in them
    reentered: tuple[Any, ...] = ()  # standard streams that this very thread was writing to
    stacks: Stacks | None = None  # what the other threads, and this one, were in the middle of
    notes: dict[Any, Any] | None = None  # by Step (which stands above this file), what it noted
    undo: tuple[Callable[[], None], ...] = ()  # takes back in the parent what the notes changed
    callbacks: tuple[list[Any], ...] = ()  # the program's own, to run when the process is whole
    raised: tuple[BaseException, ...] = ()  # what callbacks of the program raised
    deferred = False  # whether a Process runs its registry itself, and then the end of the reset

    ended = False  # whether the last of its hooks has done all

    def __init__(self, **options: Any) -> None:
        self.signals = Signals()
        vars(self).update(options)


_HOOKS = (
    ("logging", "_after_at_fork_child_reinit_locks"),
    ("concurrent.futures.thread", "_global_shutdown_lock"),
    ("concurrent.futures.thread", "_threads_queues"),
)


class _ThisProcess:
    """Tells this process from the ones that it was forked from."""

    forks = 0  # how many forks, as far as Python's hooks saw them, led here. A pid recurs
    # That count, and the pid, when all was last known to be in order.
    whole: tuple[int, int] = (0, os.getpid())
    # What every reset replaces. By it a step that leaves something for the first use of an
    # inherited object tells that object from what this process has made itself.
    mark: object = object()
    # At-fork hooks of the standard library that run after ours in the child, since their modules
    # were imported after forksafe: the reset frees their locks before the program's callbacks run.
    later_hooks = tuple(each for each in _HOOKS if each[0] not in sys.modules)


this_process = _ThisProcess()
