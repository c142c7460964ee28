"""Row 18: the child of `forked()` runs its own exit handlers, none of the parent's.

Only there. After `safe_fork()` and under the hook, exit handlers are inherited, as POSIX has it:
servers rely on it to flush in their workers.

The child of ``Process`` clears them itself and runs its own at its end since 3.13; that leaves out
``weakref.finalize``, and with it what the child makes by ``TemporaryDirectory``, until the
registration that was cleared is made again.
"""

from __future__ import annotations

import atexit
import sys

from .. import _families
from .._origin import Launch
from .._step import Idle, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._forking import Forking

__all__ = ["ExitHandlersStep"]


class ExitHandlersStep(Step):
    name = "exit handlers"

    def note(self, fork: Forking) -> Idle | None:
        plain = fork.identity is None and not isinstance(fork.origin, Launch)
        return Idle() if plain else None

    def reset(self, fork: Forking, note: None) -> bool:
        if fork.identity is None:
            return isinstance(fork.origin, Launch) and _forget_finalizers()
        atexit._clear()
        registered: list[object] = []
        for util in _families.loaded(_families.submodules("util")):
            function = getattr(util, "_exit_function", None)
            if function is not None and function not in registered:
                registered.append(function)
                atexit.register(function)
                if getattr(util, "_exiting", False):
                    # Forked while the parent is at its own end: the child's is still to come.
                    util._exiting = False  # type: ignore[attr-defined]
        _forget_finalizers()
        return True


def _forget_finalizers() -> bool:
    """Take the parent's ``weakref.finalize`` objects out of what runs at exit.

    ``finalize`` registers itself with atexit once, and remembers that it has: without its flag the
    child's own finalizers would never run.
    """
    finalize: Any = getattr(sys.modules.get("weakref"), "finalize", None)
    registry = getattr(finalize, "_registry", None)
    if not isinstance(registry, dict) or not getattr(finalize, "_registered_with_atexit", False):
        return False
    for info in list(registry.values()):
        if info.atexit:
            info.atexit = False
    finalize._registered_with_atexit = False
    return True
