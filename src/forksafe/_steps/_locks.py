"""Rows 23, 24 and 26: locks that a vanished thread held are free in the child.

- Row 26: the locks, of any library, that another thread provably held: see `_with_bodies`.
- Row 23: among them those inside of queues, events, semaphores and conditions, which the standard
  library takes by ``with``. ``install(free_locks=False)`` leaves out all but these.
- Row 24: the locks in the globals and the classes of the standard library's modules, such as
  ``_strptime._cache_lock``. Such a lock is freed if it is held in the child, and if this very
  thread is neither inside of that module nor in a with-body of that lock.

What a lock guards may be half changed by the block that was cut off. It is what `logging`, `random`
and `threading` themselves accept, since the alternative is a certain hang.
"""

from __future__ import annotations

import os
import sys
from _thread import LockType, RLock

from .._fork_event._step import NOTHING, Step
from .._fork_event._threads import UNREADABLE, others_can_be_read
from .._fork_event._with_bodies import free, free_lock

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
        self._count = 0  # of modules, when they were looked into

    def note(self, fork: ForkEvent) -> Any:
        if fork.alone:
            return NOTHING
        self._look_into_modules()
        return None

    def reset(self, fork: ForkEvent, note: None) -> bool | str:
        stacks = fork.stacks
        if stacks is None:
            return False
        self._look_into_modules()  # another thread may have imported one since
        mine = {id(one.lock) for one in stacks.own_held}
        count = 0
        for lock, module in self._of_modules:
            if module not in stacks.own_globals and id(lock) not in mine:
                count += free_lock(lock)
        for one in stacks.held:
            if id(one.lock) not in mine and (fork.free_locks or one.of_standard_library):
                count += free(one)
        if count:
            return f"done: {count} freed"
        return False if others_can_be_read() else UNREADABLE

    def _look_into_modules(self) -> None:
        if len(sys.modules) == self._count:
            return
        names = list(sys.modules)
        self._count = len(names)
        for name in names:
            if name in self._seen:
                continue
            module = sys.modules.get(name)
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                self._count = 0
                continue  # half imported: its locks are still to come
            self._seen.add(name)
            if module is None or not is_standard(name, module):
                continue
            namespace = getattr(module, "__dict__", {})
            for value in list(namespace.values()):
                if isinstance(value, (LockType, RLock)):
                    self._of_modules.append((value, id(namespace)))
                elif type(value) is type and value.__module__ == name:
                    for inner in list(vars(value).values()):
                        if isinstance(inner, (LockType, RLock)):
                            self._of_modules.append((inner, id(namespace)))


_STANDARD: Any = getattr(sys, "stdlib_module_names", None)  # since 3.10
_HOME = os.path.dirname(os.__file__)


def is_standard(name: str, module: Any) -> bool:
    """Tell whether a module is the standard library's."""
    if _STANDARD is not None:
        return name.partition(".")[0] in _STANDARD
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    if type(origin) is not str:
        return False
    return origin in ("built-in", "frozen") or (
        origin.startswith(_HOME) and "-packages" not in origin
    )
