"""Exit handlers that a child inherits, and runs when it ends as a program does.

After `safe_fork()` and under the hook they are inherited, as POSIX has it, and workers rely on it
to flush. A handler that deletes a file or says goodbye to a server does so for the parent as well.
``atexit`` names nobody; but `atexit.unregister` compares what it is given with every handler, and
an object that equals nothing can note what it was compared with.
"""

from __future__ import annotations

import atexit
import sys
from functools import partial

from .._hazard import ADVICE, Hazard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._scene import Scene

WANTED: tuple[str, ...] = ()

# Their handlers look at whose process it is, touch nothing outside it, or are told otherwise.
_HARMLESS = ("multiprocessing", "multiprocess", "billiard", "concurrent", "weakref", "logging",
             "threading", "tempfile", "forksafe")  # fmt: skip
_SHOWN = 10


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    handlers = [*_handlers(), *_finalizers()]
    names = [name for name in map(_name, handlers) if not _is_harmless(name)]
    if not names:
        return
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    count = "1 exit handler" if len(names) == 1 else f"{len(names)} exit handlers"
    yield Hazard(
        "exit-handlers",
        ADVICE,
        f"{count} would run in every child that ends by sys.exit() or at its program's end",
        subject=shown,
        detail=(
            "The child of forked() runs only its own. After safe_fork() and under install() "
            "handlers are inherited, as fork(2) has it; os._exit() runs none."
        ),
        remedy=(
            "fork with forked(), or end the child with os._exit(), or let a handler compare "
            "os.getpid() with the pid it was registered under"
        ),
        where=shown,
    )


def _handlers() -> list[object]:
    """Return the registered functions, the last registered maybe first."""
    seen: list[object] = []
    # `seen.append` is C code that returns None, which is not true: no handler is unregistered, and
    # no other thread comes in between.
    probe: Any = type("_Probe", (), {"__eq__": seen.append, "__hash__": None})
    atexit.unregister(probe())
    return seen


def _finalizers() -> list[object]:
    """Return the functions of the ``weakref.finalize`` objects that run at exit."""
    registry = getattr(getattr(sys.modules.get("weakref"), "finalize", None), "_registry", {})
    return [info.func for info in list(registry.values()) if info.atexit]


def _name(handler: object) -> str:
    while isinstance(handler, partial):
        handler = handler.func
    module = getattr(handler, "__module__", None) or type(handler).__module__
    return f"{module}:{getattr(handler, '__qualname__', type(handler).__qualname__)}"


def _is_harmless(name: str) -> bool:
    package = name.partition(":")[0].partition(".")[0]
    return package in _HARMLESS
