"""Subinterpreters: with one in the parent, CPython's own part of a fork crashes or hangs the child.

The child must do without them, as it has none of their threads, and CPython deletes them there
before anything else runs (``_PyInterpreterState_DeleteExceptMain()``). That has never worked: the
child hangs up to 3.12, and dies by SIGABRT or SIGSEGV from 3.13 on (cpython gh-139759, gh-101437).
"""

from __future__ import annotations

import sys

from .._hazard import ACTION, Hazard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._scene import Scene

WANTED: tuple[str, ...] = ()

# The second is the first one's name up to 3.12. Where neither is loaded, Python code has made none.
_MODULES = ("_interpreters", "_xxsubinterpreters")


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    for name in _MODULES:
        list_all = getattr(sys.modules.get(name), "list_all", None)
        if list_all is None:
            continue
        # Each is an object of its own, an id, or one of a tuple with it: the version decides.
        numbers = sorted(int(one[0] if isinstance(one, tuple) else one) for one in list_all())
        for number in numbers[1:]:  # the first is the main interpreter
            yield Hazard(
                "interpreter",
                ACTION,
                f"with subinterpreter {number} the child crashes before it runs any code",
                subject=str(number),
                detail="CPython itself fails to delete it in the child (cpython gh-139759).",
                remedy=(
                    "close() it before the fork, and shut an InterpreterPoolExecutor down; or make "
                    "them after the forks"
                ),
                where=f"interpreter {number}",
            )
        return
