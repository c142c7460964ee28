"""One fork under way, from the ``before`` hook to the ``after`` ones."""

from __future__ import annotations

from ._who import PLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .._reset import Plan
    from ._step import Step
    from ._who import Origin


class Forking:
    """What a step may know about the fork it is in.

    Attributes:
        origin: Who forks.
        parent: The pid of the process that forks; 0 where the ``before`` half never ran.
        identity: For `forked()`: the process object that the child is to be known by.
        mask: The signal mask to restore; None where nothing was blocked.
        alone: Whether the forking thread is the only one of the process: then nothing changes from
            the notes to the fork.
        fresh: Whether the modules that are loaded may be others than at the last fork. What a step
            has found in them then it can keep until this is true again.
        plan: Which steps have something to do, and how to tell in the child that no other has.
        notes: What each of these steps noted, in the order of the steps.
        undo: What takes back, in the parent after the fork, what the notes changed there.
        deferred: Set by a step that takes over restoring the mask, later in the child.
        raised: What callbacks of the program raised during the reset.
    """

    # Defaults on the class, and no __init__: a function less to run at every fork.
    origin: Origin = PLAIN
    parent: int = 0
    identity: Any = None
    mask: Iterable[int] | None = None
    alone: bool = False
    fresh: bool = True
    plan: Plan | None = None
    notes: list[tuple[Step, Any]] | None = None
    undo: tuple[Callable[[], None], ...] = ()
    deferred: bool = False
    raised: tuple[BaseException, ...] = ()
