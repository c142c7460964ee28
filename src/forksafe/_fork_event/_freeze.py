"""`install(freeze=True)`: the preloaded heap stays shared between the workers.

A full collection writes to every object it visits, and so copies the pages of the whole heap in
each worker that runs one. Objects that are frozen are not visited. They are frozen right before a
fork, after a collection, so that no garbage is kept for ever:
https://docs.python.org/3/library/gc.html#gc.freeze

The first fork need not be the one of a worker: a Manager's comes before what is preloaded behind
it. So the heap is frozen again where it has grown by half since, and never for less: a program that
grows and forks for ever pays for a number of collections that grows with the logarithm of its size.
"""

from __future__ import annotations

import gc

requested = False
_GROWTH = 0.5
_AT_LEAST = 10_000  # objects

_frozen = 0


def request() -> None:
    """Freeze the heap at the next fork. A no-op where the collector cannot (PyPy)."""
    global requested
    requested = hasattr(gc, "freeze")


def forget() -> None:
    """Take the request back."""
    global requested
    requested = False


def freeze() -> None:
    """Freeze the heap, unless little has been made since that was last done."""
    global _frozen
    fresh = len(gc.get_objects())  # what is frozen is not among them
    if fresh > max(_AT_LEAST, _GROWTH * _frozen) or not _frozen:
        gc.collect()
        gc.freeze()
        _frozen += fresh
