"""`install(freeze=True)`: the preloaded heap stays shared between the workers.

A full collection writes to every object it visits, and so copies the pages of the whole heap in
each worker that runs one. Objects that are frozen are not visited. They are frozen right before
the first fork, when a preloading server has loaded everything, and after a collection, so that no
garbage is kept for ever: https://docs.python.org/3/library/gc.html#gc.freeze
"""

from __future__ import annotations

import gc

requested = False


def request() -> None:
    """Freeze the heap at the next fork. A no-op where the collector cannot (PyPy)."""
    global requested
    requested = hasattr(gc, "freeze")


def freeze() -> None:
    """Freeze the heap, where it was asked for and has not been done."""
    global requested
    if requested:
        requested = False
        gc.collect()
        gc.freeze()
