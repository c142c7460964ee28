"""Who is in the middle of a method, in the threads that a child will not have: before the fork."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType
    from typing import Any

_DEPTH = 8  # frames: what these functions call, and wait for, is no deeper


def within(method: Any, frames: Iterable[FrameType]) -> list[Any]:
    """Return the objects whose method this is that some thread is in the middle of.

    Args:
        method: A function with a parameter ``self``.
        frames: The innermost frame of each thread.
    """
    code = getattr(method, "__code__", None)
    found: list[Any] = []
    for innermost in frames:
        frame: FrameType | None = innermost
        for _ in range(_DEPTH):
            if frame is None:
                break
            if frame.f_code is code:
                found.append(frame.f_locals.get("self"))
                break
            try:
                frame = frame.f_back
            except SystemError:
                break  # PyPy's compiler keeps the frames of another thread in a form of its own
    return found
