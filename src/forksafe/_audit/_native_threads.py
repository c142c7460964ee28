"""Threads that Python does not know: started by C, C++ or Rust code, and gone in the child too.

Linux lists the threads of a process, with a name each. What is in there beyond Python's own was
started by a library. Elsewhere there is no such list for a process to read about itself, and the
audit says that it does not know.
"""

from __future__ import annotations

import os
import threading

from .._hazard import ACTION, ADVICE, Hazard
from .._libraries._native_owners import owner
from ._tasks import TASKS, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._scene import Scene

WANTED: tuple[str, ...] = ()


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    try:
        tasks, raw = unknown()
    except OSError:
        yield Hazard(
            "native-thread",
            ADVICE,
            "whether libraries run threads of their own cannot be seen on this system",
            subject="(unknown)",
            detail=f"Only Linux lists a process's threads ({TASKS}); here it is not readable.",
            remedy="run the audit on Linux too, or look with a debugger or ps",
        )
        return
    if not tasks:
        return
    inherited = _inherited()
    names = {task: _name(task) for task in tasks}
    # Those that run Python code were told as Python's. Most likely they have no name of their own.
    strangers = sorted(tasks, key=lambda task: (names[task] not in inherited, task))[raw:]
    groups: dict[str, list[int]] = {}
    unsure = []
    for task in strangers:
        if not tasks[task]:
            unsure.append(task)
        elif names[task]:  # else it has ended
            groups.setdefault(names[task], []).append(task)
    for name, ids in groups.items():
        yield _hazard(name, ids, name in inherited)
    if unsure:
        yield _unsure(unsure)


def _inherited() -> set[str]:
    """Return the names that a thread has by whom it was started: the process's and Python's own."""
    threads = list(getattr(threading, "_active", {}).values())
    return {_name(os.getpid()), *(_name(getattr(thread, "native_id", None)) for thread in threads)}


def _name(task: int | None) -> str:
    try:
        with open(f"{TASKS}/{task}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""  # it has ended


def _hazard(name: str, ids: list[int], unnamed: bool) -> Hazard:
    known = owner(name, unnamed)
    count = "a native thread" if len(ids) == 1 else f"{len(ids)} native threads"
    whose = f" ({known.library})" if known.library else ""
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
        + (", without a name, so it bears that of its starter." if unnamed else "."),
        remedy=known.remedy,
        where=_tids(ids),
    )


def _unsure(tasks: list[int]) -> Hazard:
    threads = "a thread is" if len(tasks) == 1 else f"{len(tasks)} threads are"
    return Hazard(
        "native-thread",
        ADVICE,
        f"{threads} about to start or to end; whether Python's is not known",
        subject="(starting or ending)",
        detail="Watched for a quarter of a second, without a turn of the processor.",
        remedy="run the audit when no threads come and go",
        where=_tids(tasks),
    )


def _tids(tasks: list[int]) -> str:
    return "tid " + ", ".join(str(task) for task in tasks)
