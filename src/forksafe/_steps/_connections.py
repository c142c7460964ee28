"""``drop_connections=True``: the child lets go of its connections, as `_libraries` says."""

from __future__ import annotations

from .._fork_event import ForkEvent, Step
from .._fork_event._typing import Any


def drops(wanted: bool) -> Any:
    """Return what `ForkEvent.drop_connections` is to be: loaded, if wanted, for it takes long."""
    if not wanted:
        return None
    from .._libraries import _heap

    return _heap


class ConnectionsStep(Step):
    name = "connections"
    looks, late = (":drop_connections",), True

    def note(self, fork: ForkEvent) -> Any:
        return fork.drop_connections.find()

    def reset(self, fork: ForkEvent, note: Any) -> bool:
        heap = fork.drop_connections
        return bool(heap and heap.let_go(heap.find() if note is None else note))
