"""What the parts of one audit share: the heap, and what was found so far."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._hazard import Hazard
    from ._heap import Heap


class Scene:
    """One audit under way.

    Attributes:
        heap: The objects that the parts asked for.
        found: What was told so far, in the order of the parts. The steps come first, so that a
            later part can see what the reset is sure to handle.
        dropped: The ids of connections that their library, by itself, does not use in a child.
    """

    def __init__(self, heap: Heap) -> None:
        self.heap = heap
        self.found: list[Hazard] = []
        self.dropped: set[int] = set()

    def of_kind(self, *kinds: str) -> list[Hazard]:
        """Return what was found so far of these kinds."""
        return [hazard for hazard in self.found if hazard.kind in kinds]
