"""forksafe makes ``os.fork()`` safe: a forked child is as healthy as a ``multiprocessing.Process``.

It is a small package whose only purpose is what happens *at* a fork. It starts no processes for
you, keeps no pool and has no registry of its own: what must be done in a child is registered with
``multiprocessing.util.register_after_fork``, and forksafe makes it run on every fork.
"""

from __future__ import annotations

from ._hook import after_fork_in_child, install, installed, uninstall
from ._reset import last_reset
from ._safe_fork import safe_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._audit import audit
    from ._block import forked
    from ._block._handle import Fork
    from ._hazard import Hazard
    from .exceptions import ChildFailedError, ForkHazardWarning, ForksafeError, UnsafeForkError

__all__ = ["ChildFailedError", "Fork", "ForkHazardWarning", "ForksafeError", "Hazard",
           "UnsafeForkError", "after_fork_in_child", "audit", "forked", "install", "installed",
           "last_reset", "safe_fork", "uninstall"]  # fmt: skip

__version__ = "0.1.0"

# Where the other names are. Their modules are loaded at first use, to keep the import quick.
_LATER = {"Fork": "_block._handle", "Hazard": "_hazard", "audit": "_audit", "forked": "_block"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{_LATER.get(name, 'exceptions')}", fromlist=[name])
    globals()[name] = value = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
