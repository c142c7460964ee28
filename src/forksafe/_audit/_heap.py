"""Objects of a few types, found on the heap in one pass.

A connection pool is in no list: the garbage collector alone knows where it is. One pass finds the
instances of every type that some part of the audit asks for. It costs about 60 ms for a million
objects, nearly all of it inside C functions, and stays the same however many types are asked for.

What ``gc.freeze()`` has put aside is not seen, and the audit says so.
"""

from __future__ import annotations

import gc
from itertools import compress

from . import _loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class Heap:
    """The instances of the wanted types at one moment.

    Args:
        wanted: ``"module:Class"`` of each; those not loaded are passed over. Subclasses count.
    """

    def __init__(self, wanted: Iterable[str]) -> None:
        self._types: dict[str, set[type]] = {}
        every: set[type] = set()
        for path in wanted:
            cls = _loaded.find(path)
            self._types[path] = _with_subclasses(cls) if isinstance(cls, type) else set()
            every |= self._types[path]
        self._found: dict[type, list[Any]] = {}
        if every:
            objects = gc.get_objects()
            # Only types are looked at, so nothing of the program runs, whatever the object is.
            for thing in compress(objects, map(every.__contains__, map(type, objects))):
                self._found.setdefault(type(thing), []).append(thing)

    def instances(self, path: str) -> list[Any]:
        """Return the instances of ``"module:Class"``, which must have been among the wanted."""
        found: list[Any] = []
        for cls in self._types.get(path, ()):
            found += self._found.get(cls, ())
        return found


def _with_subclasses(cls: type) -> set[type]:
    every = {cls}
    todo = [cls]
    subclass: type
    while todo:
        for subclass in type.__subclasses__(todo.pop()):
            if subclass not in every:
                every.add(subclass)
                todo.append(subclass)
    return every
