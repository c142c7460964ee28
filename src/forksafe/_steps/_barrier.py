"""Where the exit handlers of a `forked()` child end, and the ones that it inherited begin.

``atexit`` calls the handlers that were registered last first. So the first that is registered in
the child is `stop`, and it ends the process. The inherited ones stay where they are:
``atexit._clear()`` would drop what they alone hold, and so delete, for one, the parent's
``NamedTemporaryFile`` whose ``close`` was registered.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_end: Callable[[], NoReturn] | None = None


def end_by(end: Callable[[], NoReturn]) -> None:
    """Say how `stop` is to end this process, which is about to run its exit handlers."""
    global _end
    _end = end


def stop() -> None:
    """End this process, if it is at its end: an exit handler."""
    if _end is not None:
        _end()
