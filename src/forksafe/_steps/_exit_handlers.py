"""Row 18: the child of `forked()` runs its own exit handlers, none of the parent's.

Those it inherited stay behind a barrier: see `forksafe._steps._barrier`.

Only there. After `safe_fork()` and under the hook, exit handlers are inherited, as POSIX has it:
servers rely on it to flush in their workers.

The child of ``Process`` clears them itself and runs its own at its end since 3.13; that leaves out
``weakref.finalize``, and with it what the child makes by ``TemporaryDirectory``, until the
registration that was cleared is made again.
"""

from __future__ import annotations

import atexit
import sys

from .._fork_event import _families
from .._fork_event._step import NOTHING, Step
from .._fork_event._who import Launch
from . import _barrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._fork_event import ForkEvent


class ExitHandlersStep(Step):
    name = "exit handlers"

    def note(self, fork: ForkEvent) -> tuple[list[Any], list[Any] | None]:
        # Here and not in the child, where the walk would copy the page of each.
        return (_utils(), _finalizers()) if _concerns(fork) else NOTHING

    def reset(self, fork: ForkEvent, note: tuple[list[Any], list[Any] | None] | None) -> bool:
        if not _concerns(fork):
            return False
        if note is None or not fork.alone:  # another thread may have made some since
            note = _utils(), _finalizers()
        utils, finalizers = note
        if fork.identity is not None:
            atexit.register(_barrier.stop)
            for util in utils:
                atexit.register(util._exit_function)
                if getattr(util, "_exiting", False):
                    # Forked while the parent is at its own end: the child's is still to come.
                    util._exiting = False
        if finalizers is not None:
            for info in finalizers:
                info.atexit = False
            # It registers itself with atexit once, and remembers that it has: without its flag the
            # child's own would never run.
            sys.modules["weakref"].finalize._registered_with_atexit = False
        return fork.identity is not None or finalizers is not None


def _concerns(fork: ForkEvent) -> bool:
    return fork.identity is not None or isinstance(fork.who, Launch)


def _utils() -> list[Any]:
    """Return the modules whose ``_exit_function`` ends a process; each function once."""
    found: dict[Any, Any] = {}
    for util in _families.loaded(_UTILS):
        function = getattr(util, "_exit_function", None)
        if function is not None:
            found.setdefault(function, util)
    return list(found.values())


def _finalizers() -> list[Any] | None:
    """Return what ``weakref.finalize`` would run at exit; None where it would not run at all."""
    finalize: Any = getattr(sys.modules.get("weakref"), "finalize", None)
    registry = getattr(finalize, "_registry", None)
    if not isinstance(registry, dict) or not getattr(finalize, "_registered_with_atexit", False):
        return None
    return [info for info in list(registry.values()) if info.atexit]


_UTILS = _families.submodules("util")
