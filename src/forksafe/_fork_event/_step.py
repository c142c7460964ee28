"""What a step is: one subsystem that a fork breaks, and all that forksafe knows about it.

A step knows three things: what can only be seen before the fork (`Step.note`), how to make the
subsystem whole in the child (`Step.reset`), and how to tell a person what it finds
(`Step.describe`). The reset and the audit are made of the same steps, so that the audit cannot
claim what the reset does not do.

The rules for `note` and `reset`, which run inside ``os.fork()``:

- nothing is imported, logged or printed, and no lock is taken: anything may be locked there;
- a subsystem that was never imported has no state: steps look in ``sys.modules``;
- private state of the standard library is touched only after its shape was checked
  (`UnknownLayout` otherwise: a new Python that moves an attribute is reported, not broken);
- whatever a step raises is recorded and stops neither the next step nor the fork.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import Forking


class UnknownLayout(Exception):
    """Private state does not look as on any Python this was tested on; the step leaves it alone."""


def expect(condition: object, what: str) -> None:
    """Raise `UnknownLayout` naming `what` unless `condition` holds."""
    if not condition:
        raise UnknownLayout(what)


class Idle:
    """What `Step.note` returns where the child has nothing to do: its reset is not called.

    Nor is its note, at later forks, while all of `watched` stays empty. The cost of a fork is
    pages that are written to, by the child and by the parent, and running any Python function
    writes to a few.

    Args:
        watched: Containers that are empty now, and cannot stay so if the step gets something to do.
    """

    __slots__ = ("watched",)

    def __init__(self, *watched: dict[Any, Any] | set[Any]) -> None:
        self.watched = watched


# What `Step.note` returns where the child has nothing to do at this fork. Where the process has
# other threads, which may change that before the fork, the reset is called nevertheless.
NOTHING: Any = object()


class Step:
    """One subsystem. Subclasses have one instance, in the list that states the order.

    Attributes:
        name: How `last_reset()` and the documentation call it.
        modules: The modules that hold the state. While none of them is loaded the step is
            skipped. Empty: it always runs.
        WANTED: ``"module:Class"`` of what `describe` wants to find on the heap.
    """

    name: str = ""
    modules: tuple[str, ...] = ()
    WANTED: tuple[str, ...] = ()

    def loaded(self) -> bool:
        """Tell whether there can be any state to reset."""
        modules = sys.modules
        for module in self.modules:
            if module in modules:
                return True
        return not self.modules

    def note(self, fork: Forking) -> Any:
        """Look, before the fork, at what the child cannot see; the result reaches `reset`.

        What it changes for the child's sake it takes back by `Forking.undo`.

        `NOTHING` as the result spares the child the reset; `Idle` spares later forks the note as
        well, and is only for what does not depend on `fork`, but for its identity and origin and
        for whether it is alone.
        """
        return None

    def reset(self, fork: Forking, note: Any) -> bool:
        """Make the subsystem whole in the child.

        Args:
            fork: The fork under way.
            note: What `note` returned; None where it raised, where it found nothing and another
                thread may have changed that since, and where the fork ran no ``before`` half.

        Returns:
            Whether there was anything to do.
        """
        raise NotImplementedError
