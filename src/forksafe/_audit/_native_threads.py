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
_PAUSES = (0.001, 0.001, 0.004, 0.008, 0.016)  # seconds between two looks
_QUIET = 2  # looks that find all as it was
_YOUNG = 1.0  # seconds, of a thread where others come and go
_JUST_STARTED = 0.05  # seconds


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    try:
        strangers, moving = _settled()
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
    unsure = []
    for task in sorted(strangers):
        name = _name(task)
        if name == process and nameless > 0:
            nameless -= 1  # a thread of _thread.start_new_thread: told as a Python thread
        elif name == process and _age(task) < (_YOUNG if moving else _JUST_STARTED):
            unsure.append(task)
        elif name:  # else it has ended
            groups.setdefault(name, []).append(task)
    for name, ids in groups.items():
        yield _hazard(name, ids, name == process)
    if unsure:
        yield Hazard(
            "native-thread",
            ADVICE,
            f"{len(unsure)} threads are starting or ending; whether they are Python's is not known",
            subject="(starting or ending)",
            remedy="run the audit when no threads come and go",
            where=_tids(unsure),
        )


def _settled() -> tuple[set[int], bool]:
    """Return the threads that stay unknown to Python, and whether threads come and go.

    A Python thread that starts or ends is unknown to Python for a moment; on a busy machine that
    can be many milliseconds.
    """
    known = _numbers()
    strangers = before = _strangers()
    moving = bool(_starting())
    for look, pause in enumerate(_PAUSES):
        if len(strangers) <= _without_native_id() or (look >= _QUIET and not moving):
            break
        time.sleep(pause)
        now = _strangers()
        others = _numbers()
        moving = moving or now != before or others != known or bool(_starting())
        strangers &= now
        before, known = now, others
    return strangers, moving


def _strangers() -> set[int]:
    """Return the threads of this process that ``threading`` has no number for."""
    tasks = {int(task) for task in os.listdir(_TASKS)}
    tasks.discard(os.getpid())  # the first thread: the interpreter's, also when Python's main ended
    tasks.discard(threading.get_native_id())
    return tasks.difference(_numbers())


def _numbers() -> set[int | None]:
    # Not Thread.ident: that of a thread that has ended is soon another's.
    return {getattr(thread, "native_id", None) for thread in _known()}


def _starting() -> object:
    return getattr(threading, "_limbo", None)


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


def _age(task: int) -> float:
    """Return how long ago a thread was started, in seconds; 0 where it has ended."""
    try:
        with open(f"{_TASKS}/{task}/stat", encoding="utf-8", errors="replace") as file:
            # The 22nd field, counted behind the name, which may have spaces: proc_pid_stat(5).
            started = int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


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
        where=_tids(ids),
    )


def _tids(tasks: list[int]) -> str:
    return "tid " + ", ".join(str(task) for task in tasks)
