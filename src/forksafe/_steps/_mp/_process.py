"""Row 6: the parent's children are not the child's.

``multiprocessing.process._children`` lists what the parent started. A forked child that exits
by the normal way runs ``multiprocessing.util._exit_function``, which sends SIGTERM to every daemon
in that set, and then fails on ``can only join a child process``.
"""

from __future__ import annotations

from ..._fork_event import _families
from ..._fork_event._step import Idle, Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from ..._fork_event import Forking


class ChildrenStep(Step):
    name = "children"
    modules = _families.submodules("process")

    def __init__(self) -> None:
        # Kept: dropping the objects here would run their finalizers inside the fork, and write to
        # memory that is still shared with the parent.
        self._strangers: list[set[object]] = []

    def note(self, fork: Forking) -> Idle | None:
        found = [one for _, one in children()]
        return None if any(found) else Idle(*found)

    def reset(self, fork: Forking, note: None) -> bool:
        strangers = []
        for process, found in children():
            if found:
                strangers.append(found)
                process._children = set()  # type: ignore[attr-defined] # shape checked above
        if strangers:
            self._strangers = strangers
        return bool(strangers)


def children() -> Iterator[tuple[ModuleType, set[object]]]:
    """Yield the modules that list the children of a family, each with its list."""
    for process in _families.loaded(ChildrenStep.modules):
        found = getattr(process, "_children", None)
        expect(isinstance(found, set), f"{process.__name__}._children is not a set")
        assert found is not None
        yield process, found
