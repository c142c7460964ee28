"""Finding the objects of known classes on the heap, and letting go of what they are connected to.

Loaded for the audit and for ``drop_connections=True`` alone. The latter looks in the parent, where
no look copies its pages, and cuts in the child; how, the table `_connections` says.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
from itertools import compress

from .._fork_event import HEAP_TYPE
from .._fork_event._typing import Any
from ._connections import ROWS, Row

Found = list[tuple[Row, list[Any]]]
PYPY = sys.implementation.name == "pypy"


def find() -> Found:
    types = [(row, classes(row.path)) for row in ROWS]
    every = instances({cls for _, found in types for cls in found}, frozen=True)
    found = [(row, [thing for cls in kinds for thing in every[cls]]) for row, kinds in types]
    return [(row, things) for row, things in found if things]


def let_go(found: Found) -> bool:
    """Have this child let go of what `find` has found; tell whether that was anything."""
    failed: list[Exception] = []
    try:
        _cut(_each(found, "socket", failed))
    finally:
        _each(found, "forget", failed)
    if failed:
        raise failed[0]
    done = bool(found)
    found.clear()  # the objects live only as long as the program has them
    return done


def names(module: str) -> dict[str, Any]:
    """Return the dictionary of `module`; an empty one where it is not loaded."""
    try:
        found = object.__getattribute__(sys.modules.get(module), "__dict__")
    except AttributeError:
        return {}  # None, or something odd that a program put there
    return found if isinstance(found, dict) else {}


def loaded(path: str) -> Any:
    """Return what ``"module:name"`` stands for; None where it is not loaded."""
    module, _, name = path.partition(":")
    return names(module).get(name)


def classes(path: str) -> list[type]:
    """Return the class that ``"module:Class"`` stands for, and its subclasses."""
    found = [cls for cls in (loaded(path),) if isinstance(cls, type)]
    for cls in found:  # it grows as it is read
        found += set(type.__subclasses__(cls)) - set(found)
    return found


def instances(types: set[type], frozen: bool = False) -> dict[type, list[Any]]:
    """Return, by type, the objects on the heap of exactly these types; `frozen` ones if told so.

    An object refers to its type, unless that type is static in C. ``gc.get_objects()`` is slow, and
    counts a reference to each object: that copies pages which older children share, and CPython
    refuses (``SystemError``) where another thread resizes a tuple. PyPy counts no references.
    """
    found: dict[type, list[Any]] = {cls: [] for cls in types}
    if not types:
        return found
    refer = {loaded(row.path): row.anchors for row in ROWS if row.anchors}
    anchors = [*types, *(anchor for cls in types & refer.keys() for anchor in refer[cls]())]
    in_c = [cls for cls in types if not cls.__flags__ & HEAP_TYPE]
    unanchored = any(refer.keys().isdisjoint(cls.__mro__) for cls in in_c)
    # The collector does not show frozen objects.
    thaw = frozen and getattr(gc, "get_freeze_count", int)()
    if thaw:
        gc.collect(1)  # young garbage, which the freeze would keep for ever
        gc.unfreeze()
    objects = gc.get_objects() if PYPY or unanchored else gc.get_referrers(*anchors)
    if thaw:
        gc.freeze()
    # Only types are looked at, so nothing of the program runs, whatever the object is.
    for thing in compress(objects, map(types.__contains__, map(type, objects))):
        found[type(thing)].append(thing)
    return found


def _each(found: Found, what: str, failed: list[Exception]) -> list[Any]:
    """Do to each object what its row says, whatever that raises; return the results."""
    results = []
    for row, things in found:
        do: Any = getattr(row, what)
        for thing in things if do else ():
            try:
                results.append(do(thing))
            except Exception as exc:
                failed.append(exc)
    return results


def _cut(sockets: list[Any]) -> None:
    """Put a socket whose peer is closed under their descriptors, in this process alone."""
    sockets = [sock for sock in sockets if sock is not None]
    if not sockets:
        return
    # From C, since the socket module may not be whole yet.
    dead, peer = sys.modules["_socket"].socketpair()
    peer.close()
    for sock in sockets:
        try:
            number = sock if isinstance(sock, int) else sock.fileno()
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.dup2(dead.fileno(), number, False)
        except OSError:
            pass  # it is closed
    dead.close()
