"""forksafe makes ``os.fork()`` safe: a forked child is as healthy as a ``multiprocessing.Process``.

It is a small package whose only purpose is what happens *at* a fork. It starts no processes for
you, keeps no pool and has no registry of its own: what must be done in a child is registered with
``multiprocessing.util.register_after_fork``, and forksafe makes it run on every fork.
"""

from __future__ import annotations

from ._fork import safe_fork
from ._forked import forked
from ._handle import Fork
from ._hook import after_fork_in_child, install, installed, uninstall
from ._reset import last_reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._audit import audit
    from ._hazard import Hazard

__all__ = [
    "Fork",
    "Hazard",
    "after_fork_in_child",
    "audit",
    "forked",
    "install",
    "installed",
    "last_reset",
    "safe_fork",
    "uninstall",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # The audit is loaded when it is asked for, and costs those nothing who do not.
    if name not in ("Hazard", "audit"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._audit import audit
    from ._hazard import Hazard

    globals().update(Hazard=Hazard, audit=audit)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
