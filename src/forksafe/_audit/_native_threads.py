"""Threads that Python does not know: started by C, C++ or Rust code, and gone in the child too.

Linux lists the threads of a process in /proc/self/task, with a name each. What is in there beyond
Python's own was started by a library. Elsewhere there is no such list for a process to read about
itself, and the audit says that it does not know.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from .._hazard import ACTION, ADVICE, Hazard
from ._native_owners import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._scene import Scene

__all__ = ["WANTED", "find"]

WANTED: tuple[str, ...] = ()

_TASKS = "/proc/self/task"
_LOOKS = 3
_PAUSE = 0.001  # seconds


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    try:
        strangers = _strangers()
        for _ in range(_LOOKS - 1):
            # A Python thread that starts or ends is unknown to Python for a moment.
            if len(strangers) > _without_native_id():
                time.sleep(_PAUSE)
                strangers &= _strangers()
    except OSError:
        yield Hazard(
            "native-thread",
            ADVICE,
            "whether libraries run threads of their own cannot be seen on this system",
            subject="(unknown)",
            detail=f"Only Linux lists a process's threads ({_TASKS}); here it is not readable.",
            remedy="run the audit on Linux too, or look with a debugger or ps",
        )
        return
    process = _name(os.getpid())
    nameless = _without_native_id()
    groups: dict[str, list[int]] = {}
    for task in sorted(strangers):
        name = _name(task)
        if name == process and nameless > 0:
            nameless -= 1  # a thread of _thread.start_new_thread: told as a Python thread
        elif name:  # else it has ended
            groups.setdefault(name, []).append(task)
    for name, ids in groups.items():
        yield _hazard(name, ids, name == process)


def _strangers() -> set[int]:
    """Return the threads of this process that ``threading`` has no number for."""
    tasks = {int(task) for task in os.listdir(_TASKS)}
    tasks.discard(os.getpid())  # the first thread: the interpreter's, also when Python's main ended
    tasks.discard(threading.get_native_id())
    return tasks.difference(getattr(thread, "native_id", None) for thread in _known())


def _known() -> list[threading.Thread]:
    return list(getattr(threading, "_active", {}).values())


def _without_native_id() -> int:
    """Count the threads that Python runs, but ``threading`` has no number of the system for."""
    known = {thread.ident for thread in _known() if getattr(thread, "native_id", None)}
    return sum(ident not in known for ident in sys._current_frames())


def _name(task: int) -> str:
    try:
        with open(f"{_TASKS}/{task}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""  # it has ended


def _hazard(name: str, ids: list[int], unnamed: bool) -> Hazard:
    known = owner(name, unnamed)
    count = "a native thread" if len(ids) == 1 else f"{len(ids)} native threads"
    whose = f" of {known.library}" if known.library else ""
    becomes = (
        "would be gone in the child"
        if known.severity == ACTION
        else "would be gone in the child, which the library is prepared for"
    )
    return Hazard(
        "native-thread",
        known.severity,
        f"{count} {name!r}{whose} {becomes}",
        subject=name,
        detail="Started by code outside Python"
        + (", without a name, so it bears that of the process." if unnamed else "."),
        remedy=known.remedy,
        where="tid " + ", ".join(str(task) for task in ids),
    )
