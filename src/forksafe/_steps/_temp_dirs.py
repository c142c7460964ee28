"""Row 17: the parent's ``TemporaryDirectory`` objects delete nothing in the child.

Whichever way the child lets go of one: at exit, when the object is collected, by leaving a
``with`` block, by calling ``cleanup()``. The directory is the parent's; a child that means to
delete it can say so with ``shutil.rmtree(directory.name)``.
"""

from __future__ import annotations

import sys

from .._fork_event._step import NOTHING, Idle, Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._fork_event import Forking


class TempDirsStep(Step):
    name = "temporary directories"
    modules = ("tempfile",)

    def note(self, fork: Forking) -> Idle | list[tuple[Any, Any]]:
        # Here and not in the child, where a walk would copy the page of each finalizer.
        registry = _registry()
        return live_directories() or NOTHING if registry else Idle(registry)

    def reset(self, fork: Forking, note: list[tuple[Any, Any]] | None) -> bool:
        # Looked at again where another thread may have made one since.
        live = note if note is not None and fork.alone else live_directories()
        for finalizer, directory in live:
            finalizer.detach()
            # Below cleanup(): its bound method can be registered somewhere, with atexit for one.
            directory._rmtree = _leave_to_the_parent
        return bool(live)


def _leave_to_the_parent(*args: object, **kwargs: object) -> None:
    """Stand in for `TemporaryDirectory._rmtree` in a process that did not make the directory."""


def _registry() -> dict[Any, Any]:
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    registry: Any = getattr(finalize, "_registry", None)
    expect(isinstance(registry, dict), "weakref.finalize._registry is no dict")
    return registry  # type: ignore[no-any-return] # its shape was checked


def live_directories() -> list[tuple[Any, Any]]:
    """Return the finalizer and the object of every live ``TemporaryDirectory``."""
    cleanup = getattr(sys.modules["tempfile"].TemporaryDirectory, "_cleanup", None)
    expect(hasattr(cleanup, "__func__"), "TemporaryDirectory._cleanup is no class method")
    assert cleanup is not None
    live = []
    for finalizer, info in list(_registry().items()):
        if getattr(info.func, "__func__", None) is cleanup.__func__:
            directory = info.weakref()
            if directory is not None:
                live.append((finalizer, directory))
    return live
