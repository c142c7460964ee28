"""Row 17: the parent's ``TemporaryDirectory`` objects delete nothing in the child.

Whichever way the child lets go of one: at exit, when the object is collected, by leaving a
``with`` block, by calling ``cleanup()``. The directory is the parent's; a child that means to
delete it can say so with ``shutil.rmtree(directory.name)``.
"""

from __future__ import annotations

import sys

from .._step import Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._forking import Forking

__all__ = ["TempDirsStep"]


class TempDirsStep(Step):
    name = "temporary directories"
    modules = ("tempfile",)

    def note(self, fork: Forking) -> list[tuple[Any, Any]]:
        # Here and not in the child, where a walk would copy the page of each finalizer.
        return list(_live())

    def reset(self, fork: Forking, note: list[tuple[Any, Any]] | None) -> bool:
        live = list(_live()) if note is None else note
        for finalizer, directory in live:
            finalizer.detach()
            # Below cleanup(): its bound method can be registered somewhere, with atexit for one.
            directory._rmtree = _leave_to_the_parent
        return bool(live)


def _leave_to_the_parent(*args: object, **kwargs: object) -> None:
    """Stand in for `TemporaryDirectory._rmtree` in a process that did not make the directory."""


def _live() -> list[tuple[Any, Any]]:
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    registry = getattr(finalize, "_registry", None)
    expect(isinstance(registry, dict), "weakref.finalize._registry is no dict")
    assert registry is not None
    directory_type = sys.modules["tempfile"].TemporaryDirectory
    cleanup = getattr(directory_type, "_cleanup", None)
    expect(
        hasattr(cleanup, "__func__"), "TemporaryDirectory._cleanup is no class method"
    )
    assert cleanup is not None
    live = []
    for finalizer, info in list(registry.items()):
        if getattr(info.func, "__func__", None) is cleanup.__func__:
            directory = info.weakref()
            if directory is not None:
                live.append((finalizer, directory))
    return live
