"""The packages that fork as ``multiprocessing`` does, as far as they are loaded.

``multiprocess`` (pathos) is a copy with registries and children of its own. ``billiard`` (Celery)
has children of its own, and shares the registries of ``multiprocessing.util``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

NAMES = ("multiprocessing", "multiprocess", "billiard")


def submodules(submodule: str) -> tuple[str, ...]:
    """Return the full names of `submodule` in every family: what a step's ``modules`` is."""
    return tuple(f"{name}.{submodule}" for name in NAMES)


def loaded(names: tuple[str, ...]) -> Iterator[ModuleType]:
    """Yield the modules among `names` that are loaded, in order."""
    modules = sys.modules
    for name in names:
        module = modules.get(name)
        if module is not None:
            yield module
