"""Row 6: the parent's children are not the child's.

``multiprocessing.process._children`` lists what the parent started. A forked child that exits
by the normal way runs ``multiprocessing.util._exit_function``, which sends SIGTERM to every daemon
in that set, and then fails on ``can only join a child process``.
"""

from __future__ import annotations

from .. import _families
from .._step import Idle, Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from .._audit._heap import Heap
    from .._forking import Forking
    from .._hazard import Hazard

__all__ = ["ChildrenStep"]


class ChildrenStep(Step):
    name = "children"
    modules = _families.submodules("process")

    def __init__(self) -> None:
        # Kept: dropping the objects here would run their finalizers inside the fork, and write to
        # memory that is still shared with the parent.
        self._strangers: list[set[object]] = []

    def note(self, fork: Forking) -> Idle | None:
        found = [children for _, children in self._found()]
        return None if any(found) else Idle(*found)

    def reset(self, fork: Forking, note: None) -> bool:
        strangers = []
        for process, children in self._found():
            if children:
                strangers.append(children)
                process._children = set()  # type: ignore[attr-defined] # shape checked above
        if strangers:
            self._strangers = strangers
        return bool(strangers)

    def describe(self, heap: Heap) -> Iterator[Hazard]:
        from .._hazard import FIXED, Hazard

        for _, children in self._found():
            for child in list(children):
                name = str(getattr(child, "_name", "?"))
                pid = getattr(getattr(child, "_popen", None), "pid", None)
                if getattr(child, "_config", {}).get("daemon"):
                    becomes = "would be ended by any child of os.fork() that ends by sys.exit()"
                else:
                    becomes = "would seem to be the child's own, which cannot wait for it"
                yield Hazard(
                    "child-process",
                    FIXED,
                    f"process {name!r} {becomes}",
                    subject=name,
                    detail=(
                        "multiprocessing sends SIGTERM to the daemons in its list of children, and "
                        "joins the others, at the end of a process."
                    ),
                    remedy="nothing under forksafe: the child's list of children starts empty",
                    where=f"pid {pid}",
                )

    def _found(self) -> Iterator[tuple[ModuleType, set[object]]]:
        for process in _families.loaded(self.modules):
            children = getattr(process, "_children", None)
            expect(isinstance(children, set), f"{process.__name__}._children is not a set")
            assert children is not None
            yield process, children
