"""Looking into loaded modules without waking them.

The audit imports nothing. A lazy module imports when an attribute is asked for, by a
``__getattr__`` of its own or as ``importlib.util.LazyLoader`` makes it, so only what stands in
its dictionary counts; that of a module half imported is short, and that is the truth.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def is_loaded(module: str) -> bool:
    """Tell whether `module` is imported, or being imported."""
    return sys.modules.get(module) is not None


def is_half(module: str) -> bool:
    """Tell whether `module` is being imported, and has but half of its names."""
    spec = names(module).get("__spec__")
    return bool(getattr(spec, "_initializing", False))


def names(module: str) -> Mapping[str, Any]:
    """Return the dictionary of `module`; an empty one where it is not loaded."""
    loaded = sys.modules.get(module)
    try:
        found = object.__getattribute__(loaded, "__dict__")
    except AttributeError:
        return {}  # None, or something odd that a program put there
    return found if isinstance(found, dict) else {}


def attribute(module: str, name: str) -> Any:
    """Return what `module` calls `name`; None where there is no such thing."""
    return names(module).get(name)


def find(path: str) -> Any:
    """Return what ``"module:name"`` stands for; None where it is not loaded."""
    module, _, name = path.partition(":")
    return attribute(module, name)
