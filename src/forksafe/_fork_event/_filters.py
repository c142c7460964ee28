"""What the program's warning filters would make of a warning, without giving it."""

from __future__ import annotations

import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def would_raise(text: str, category: type[Warning], module: str, line: int) -> bool:
    """Tell whether the warning, given now, would be an exception: as ``warnings.warn()`` decides.

    Args:
        text: Its message.
        category: Its class.
        module: The name of the module that it is given in.
        line: The line there.
    """
    # Since 3.14 filters may belong to a context.
    filters: Any = getattr(warnings, "_get_filters", None)
    for action, message, kind, place, number in filters() if filters else warnings.filters:
        if (
            _matches(message, text)
            and issubclass(category, kind)
            and _matches(place, module)
            and number in (0, line)
        ):
            return bool(action == "error")
    return bool(getattr(warnings, "defaultaction", "default") == "error")


def _matches(pattern: Any, text: str) -> bool:
    # The interpreter's own filters have plain strings, which must be equal: check_matched() in
    # CPython's _warnings.c.
    if pattern is None or isinstance(pattern, str):
        return pattern in (None, text)
    return bool(pattern.match(text))
