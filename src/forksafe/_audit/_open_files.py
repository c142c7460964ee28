"""Files with data that is not written yet: a fork copies the buffer, and both write it.

Python does not say how much waits in a buffer, and ``flush()`` or ``tell()`` on a text file would
write it. The binary layer tells by the distance of its own position from the descriptor's; the
text layer by what its memory refers to, on CPython only. Pipes have no position, so for them only
the text layer is seen. stdout and stderr are the business of a step.
"""

from __future__ import annotations

import gc
import io
import sys

from .._hazard import ACTION, Hazard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._scene import Scene

_BINARY = ("_io:BufferedWriter", "_io:BufferedRandom")
_TEXT = "_io:TextIOWrapper"
WANTED = (*_BINARY, _TEXT)

_NEWLINES = ("", "\n", "\r", "\r\n")
_CPYTHON = sys.implementation.name == "cpython"


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    handled = {id(stream) for stream in streams}
    handled |= {id(getattr(stream, "buffer", None)) for stream in streams}
    waiting: dict[int, tuple[Any, int]] = {}
    for path in _BINARY:
        for file in scene.heap.instances(path):
            size = _binary(file)
            if size > 0 and id(file) not in handled:
                waiting[id(file)] = (file, size)
    for file in scene.heap.instances(_TEXT):
        size = _text(file)
        if size > 0 and id(file) not in handled:
            below = waiting.pop(id(file.buffer), (None, 0))[1]
            waiting[id(file)] = (file, size + below)
    for file, size in waiting.values():
        yield _hazard(file, size)


def _binary(file: Any) -> int:
    try:
        raw = file.raw
        if type(raw) is not io.FileIO or file.closed:
            return 0  # a raw layer of the program's own: asking it would run its code
        return int(file.tell() - raw.tell())
    except (OSError, ValueError, AttributeError):
        return 0


def _text(file: Any) -> int:
    if not _CPYTHON:
        return 0
    try:
        if file.closed or not file.writable():
            return 0
        things = gc.get_referents(file)
        if file.readable():
            # Also open for reading: a tuple stands for what was read since it was last written to.
            if any(type(thing) is tuple for thing in things):
                return 0
            if str(getattr(file, "mode", "r")).startswith("r"):
                things = [thing for thing in things if type(thing) is not str]  # read, or written?
        known = (file.encoding, file.errors)
        return sum(_size(thing) for thing in things if thing not in known)
    except (OSError, ValueError, AttributeError, TypeError):
        return 0


def _size(thing: Any) -> int:
    if type(thing) is list:
        return sum(_size(part) for part in list(thing))
    if type(thing) is bytes:
        return len(thing)
    if type(thing) is str and thing not in _NEWLINES:  # the `newline` it was opened with
        return len(thing)
    return 0


def _hazard(file: Any, size: int) -> Hazard:
    name = getattr(file, "name", None)
    path = name if isinstance(name, str) else f"(descriptor {name})"
    try:
        where = f"fd {file.fileno()}"
    except (OSError, ValueError):
        where = ""
    return Hazard(
        "open-file",
        ACTION,
        f"{size} characters or bytes wait to be written to {path}: both processes would write them",
        subject=path,
        detail="What waits in a file's buffer is copied with the memory.",
        remedy="flush() it before the fork, or close it",
        where=where,
    )
