"""Rows 23, 24 and 26: locks that a vanished thread held are free in the child."""

from __future__ import annotations

import os
import sys
from _thread import LockType, RLock

from .._fork_event._step import NOTHING, Step
from .._fork_event._threads import UNREADABLE, others_can_be_read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._fork_event import ForkEvent


class LocksStep(Step):
    name = "locks"

    def __init__(self) -> None:
        # The locks of the standard library's modules, each with the id of its module's globals.
        self._of_modules: list[tuple[Any, int]] = []
        self._seen: set[str] = set()

    def note(self, fork: ForkEvent) -> Any:
        if fork.alone:
            return NOTHING
        if len(sys.modules) != len(self._seen):
            self._look_into_modules()
        return None

    def reset(self, fork: ForkEvent, note: None) -> bool | str:
        stacks = fork.stacks
        if stacks is None:
            return False
        mine = {id(one.lock) for one in stacks.own_held}
        count = 0
        for lock, module in self._of_modules:
            if module not in stacks.own_globals and id(lock) not in mine:
                count += free(lock)
        for one in stacks.held:
            if id(one.lock) not in mine and (fork.free_locks or one.of_standard_library):
                count += free(one.lock)
        if count:
            return f"done: {count} freed"
        return False if others_can_be_read() else UNREADABLE

    def _look_into_modules(self) -> None:
        for name in list(sys.modules):
            if name in self._seen:
                continue
            module = sys.modules.get(name)
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                continue  # half imported: its locks are still to come
            self._seen.add(name)
            if module is None or not is_standard(name, module):
                continue
            names = getattr(module, "__dict__", {})
            for value in list(names.values()):
                if isinstance(value, (LockType, RLock)):
                    self._of_modules.append((value, id(names)))
                elif type(value) is type and value.__module__ == name:
                    for inner in list(vars(value).values()):
                        if isinstance(inner, (LockType, RLock)):
                            self._of_modules.append((inner, id(names)))


def free(lock: Any) -> bool:
    """Free a lock, in the child, unless it is free or this thread's; tell whether that was needed.

    Args:
        lock: One that is known not to be this thread's, or a re-entrant one.
    """
    # Not by locked(): up to 3.13 a thread can have taken the lock and not yet set the flag.
    if isinstance(lock, RLock) and lock._is_owned():  # type: ignore[attr-defined] # not in typeshed
        return False
    if lock.acquire(False):
        lock.release()
        return False
    lock._at_fork_reinit()
    return True


_STANDARD: Any = getattr(sys, "stdlib_module_names", None)  # since 3.10
_HOME = os.path.dirname(os.__file__)


def is_standard(name: str, module: Any) -> bool:
    """Tell whether a module is the standard library's."""
    if _STANDARD is not None:
        return name.partition(".")[0] in _STANDARD
    path = getattr(module, "__file__", None)
    return path is None or (path.startswith(_HOME) and "-packages" not in path)
