"""One fork under way, from the ``before`` hook to the ``after`` ones."""

from __future__ import annotations

from ._origin import PLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ._origin import Origin
    from ._step import Step

__all__ = ["Forking"]


class Forking:
    """What a step may know about the fork it is in.

    Attributes:
        origin: Who forks.
        parent: The pid of the process that forks; 0 where the ``before`` half never ran.
        identity: For `forked()`: the process object that the child is to be known by.
        mask: The signal mask to restore; None where nothing was blocked.
        notes: What each step noted, in the order of the steps.
        deferred: Set by a step that takes over restoring the mask, later in the child.
        raised: What callbacks of the program raised during the reset.
    """

    __slots__ = (
        "__weakref__",
        "deferred",
        "identity",
        "mask",
        "notes",
        "origin",
        "parent",
        "raised",
    )

    def __init__(
        self, origin: Origin = PLAIN, parent: int = 0, identity: Any = None
    ) -> None:
        self.origin = origin
        self.parent = parent
        self.identity = identity
        self.mask: Iterable[int] | None = None
        self.notes: list[tuple[Step, Any]] | None = None
        self.deferred = False
        self.raised: list[BaseException] = []
