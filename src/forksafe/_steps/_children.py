"""Row 6: the parent's children are not the child's.

``multiprocessing.process._children`` lists what the parent started. A forked child that exits
by the normal way runs ``multiprocessing.util._exit_function``, which sends SIGTERM to every daemon
in that set, and then fails on ``can only join a child process``.
"""

from __future__ import annotations

from .. import _families
from .._step import Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._forking import Forking

__all__ = ["ChildrenStep"]


class ChildrenStep(Step):
    name = "children"
    modules = _families.submodules("process")

    def __init__(self) -> None:
        # Kept: dropping the objects here would run their finalizers inside the fork, and write to
        # memory that is still shared with the parent.
        self._strangers: list[set[object]] = []

    def reset(self, fork: Forking, note: None) -> bool:
        strangers = []
        for process in _families.loaded(self.modules):
            children = getattr(process, "_children", None)
            expect(
                isinstance(children, set), f"{process.__name__}._children is not a set"
            )
            if children:
                strangers.append(children)
                process._children = set()  # type: ignore[attr-defined] # shape checked above
        if strangers:
            self._strangers = strangers
        return bool(strangers)
