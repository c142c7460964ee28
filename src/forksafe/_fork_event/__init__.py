"""One fork, as one object: from whoever asks for it to the end of its last hook."""

from __future__ import annotations

import sys

from ._signals import Signals
from ._who import PLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._threads import Stacks
    from ._who import Who


class ForkEvent:
    """What is known of one fork, and what its child is to be.

    Attributes:
        outer: The fork of the same thread that this one interrupts, by a signal handler.
        asked: Whether `safe_fork()` or `forked()` asked for it.
        begun: Whether its ``before`` hook has run.
        left_alone: Whether it is none of ours: the child is about to exec, or nobody asked.
        signals: The signals that the forking thread puts off.
        who: Who forks.
        parent: The pid of the process that forks; 0 where no ``before`` hook ran.
        alone: Whether the forking thread is the only one: nothing changes from note to fork then.
        identity: For `forked()`: the process object that the child is to be known by.
        drop_connections: Whether the child lets go of the parent's connections.
        free_locks: Whether locks that another thread provably held are freed in the child.
        unflushed: Standard streams that did not take what waited in them.
        reentered: Standard streams that this very thread was writing to.
        stacks: What the other threads, and this one, were in the middle of.
        notes: By step, what it noted before the fork; a `Step` stands above this file.
        undo: What takes back in the parent what the notes changed there.
        callbacks: The program's own callbacks, to run when the process is whole.
        raised: What callbacks of the program raised.
        deferred: Whether a `Process` runs its registry itself, and with it the end of the reset.
    """

    begun = False
    left_alone = False
    who: Who = PLAIN
    parent = 0
    alone = False
    unflushed: tuple[Any, ...] = ()
    reentered: tuple[Any, ...] = ()
    stacks: Stacks | None = None
    notes: dict[Any, Any] | None = None
    undo: tuple[Callable[[], None], ...] = ()
    callbacks: tuple[list[Any], ...] = ()
    raised: tuple[BaseException, ...] = ()
    deferred = False

    def __init__(
        self,
        *,
        asked: bool = False,
        outer: ForkEvent | None = None,
        identity: Any = None,
        signals: Signals | None = None,
        drop_connections: bool = False,
        free_locks: bool = True,
    ) -> None:
        self.asked = asked
        self.outer = outer
        self.identity = identity
        self.signals = signals or Signals()
        self.drop_connections = drop_connections
        self.free_locks = free_locks


class _ThisProcess:
    """Tells this process from the ones that it was forked from.

    Attributes:
        forks: How many forks, as far as Python's hooks saw them, led to this process. A pid recurs.
        mark: An object that every reset replaces: what a step leaves for later, to be done when an
            inherited object is first used, it can so tell from what this process has made itself.
        later_hooks: At-fork hooks of the standard library that run after ours in the child, since
            their modules were imported after forksafe: the locks that they free are still held
            when the callbacks of the program run, so the reset frees them first.
    """

    forks = 0
    mark: object = object()
    later_hooks = tuple(
        (module, attribute)
        for module, attribute in (
            ("logging", "_after_at_fork_child_reinit_locks"),
            ("concurrent.futures.thread", "_global_shutdown_lock"),
        )
        if module not in sys.modules
    )


this_process = _ThisProcess()
