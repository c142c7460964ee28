"""What the fork costs, and what its children will copy. Advice only.

A fork copies no memory but the page tables: 10 to 25 ms for each GiB that is resident in small
pages. What children then copy, page by page, is what they write to; a garbage collection writes
to every object, unless ``gc.freeze()`` has put aside what was there before the fork.
"""

from __future__ import annotations

import gc
import os
import sys

from .._hazard import ADVICE, Hazard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._scene import Scene

WANTED: tuple[str, ...] = ()

_GIB = 1 << 30
_MIB = 1 << 20
_COST = (10, 25)  # milliseconds for each GiB


# Python 3.12 freezes a few hundred objects of its own when it starts; a program has thousands.
_AT_START = 1000


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    frozen = gc.get_freeze_count() if hasattr(gc, "get_freeze_count") else None
    if frozen is not None and frozen < _AT_START:
        frozen = 0
    resident = _resident()
    size = f"{resident / _MIB:.0f} MiB resident" if resident else "of unknown size"
    cost = ""
    if resident:
        low, high = (milliseconds * resident / _GIB for milliseconds in _COST)
        cost = f"A fork takes about {low:.1f} to {high:.1f} ms for its page tables. "
    if frozen == 0:
        state = ", not frozen"
        remedy = (
            "install(freeze=True), in a server that preloads and then forks its workers; or "
            "gc.freeze() right before the first fork"
        )
    elif frozen is None:
        state = ""  # PyPy has no such thing
        remedy = ""
    else:
        state = f", {frozen} objects frozen"
        remedy = ""
    yield Hazard(
        "memory",
        ADVICE,
        f"the process is {size}{state}",
        detail=f"{cost}Children copy the pages that they, or the parent, write to.",
        remedy=remedy,
    )
    if frozen:
        yield Hazard(
            "unknown",
            ADVICE,
            f"{frozen} frozen objects were not looked at",
            subject="gc.freeze",
            detail=(
                "gc.freeze() hides objects from the heap's listing. Threads, sockets and SQLite "
                "files are found all the same; pools, executors, loops, temporary and open files, "
                "and who holds a socket, may not be."
            ),
            remedy="run the audit before gc.freeze()",
        )


def _resident() -> int:
    """Return the resident size in bytes; at its highest, where the present one is not told."""
    try:
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    resource = sys.modules.get("resource")  # imports nothing: not even for a number
    if resource is None:
        return 0
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024
