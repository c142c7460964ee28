"""Libraries that are loaded and known not to survive a fork: `_hostile_modules` has the table."""

from __future__ import annotations

import os

from .._hazard import Hazard
from .._libraries._hostile_modules import MODULES
from . import _loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._scene import Scene

WANTED: tuple[str, ...] = ()


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    for known in MODULES:
        if not _loaded.is_loaded(known.module):
            continue
        if known.state and not _loaded.find(known.state):
            continue
        shown = [f"{name}={os.environ.get(name, '(unset)')}" for name in known.environment]
        yield Hazard(
            known.kind,
            known.severity,
            f"{known.module}: {known.trouble}",
            subject=known.module,
            detail="; ".join(shown),
            remedy=known.remedy,
            where=known.module,
        )
