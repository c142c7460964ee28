"""``drop_connections=True``: the child lets go of the connections that it had in the parent.

How, the table ``_libraries/_connections.py`` says. Where one of its libraries is loaded, we look
for their objects on the heap, in the parent, where no look copies its pages.
"""

from __future__ import annotations

import gc
import os
import stat
import sys

from .._fork_event import ForkEvent
from .._fork_event._step import NOTHING, Step
from .._fork_event._typing import Any
from .._libraries._connections import ROWS, Row

Found = list[tuple[Row, list[Any]]]
_PYPY = sys.implementation.name == "pypy"


class ConnectionsStep(Step):
    name = "connections"
    modules = tuple(row.path.partition(":")[0] for row in ROWS)

    def note(self, fork: ForkEvent) -> Found:
        return _find() if fork.drop_connections else NOTHING

    def reset(self, fork: ForkEvent, note: Found | None) -> bool:
        if not fork.drop_connections:
            return False
        found = _find() if note is None else note
        failed: list[Exception] = []
        try:
            _cut(_each(found, "socket", failed))
        finally:
            _each(found, "forget", failed)
        if failed:
            raise failed[0]
        done = bool(found)
        found.clear()  # they live as long as the program has them
        return done


def _find() -> Found:
    found: Found = []
    of_class: dict[type, list[list[Any]]] = {}
    anchors: list[Any] = []
    for row in ROWS:
        module, _, name = row.path.partition(":")
        loaded = sys.modules.get(module)
        cls = None if loaded is None else vars(loaded).get(name)
        if isinstance(cls, type):
            classes: list[type] = [cls]  # it grows as it is read
            for each in classes:
                classes += set(type.__subclasses__(each)) - set(classes)
            found.append((row, []))
            for each in classes:
                of_class.setdefault(each, []).append(found[-1][1])
            anchors += classes if row.anchors is None else (*classes, *row.anchors())
    for thing in _referrers(anchors) if found else ():
        for things in of_class.get(type(thing), ()):
            things.append(thing)
    return [(row, things) for row, things in found if things]


def _referrers(anchors: list[Any]) -> list[Any]:
    """Return what refers to `anchors`, among other things: an object refers to its class."""
    # Not gc.get_objects(): it counts a reference to every object, which copies pages that are
    # shared with older children, and CPython refuses to resize a tuple that others refer to.
    # The collector does not show what it was told to leave alone.
    frozen = getattr(gc, "get_freeze_count", int)()
    if frozen:
        gc.collect(1)  # young garbage, which would be left alone for ever
        gc.unfreeze()
    found = gc.get_objects() if _PYPY else gc.get_referrers(*anchors)
    if frozen:
        gc.freeze()
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
    """Give their descriptors, in this process alone, to a socket that its peer has closed."""
    sockets = [sock for sock in sockets if sock is not None]
    if not sockets:
        return
    # From C: nothing of the socket module need be whole yet.
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
