"""What belongs to C code and to the interpreter: native threads, modules, exit handlers, memory.

Linux lists all threads of a process. Those that ``threading`` does not know were started by C, C++
or Rust code, or are about to start or to end. So we watch them for 24 ms or more. A Python
thread that starts gets a number, one that ends goes away, and neither sleeps meanwhile: a thread
that waits for the GIL wakes at every switch interval (take_gil() in CPython's ceval_gil.c).
"""

from __future__ import annotations

import atexit
import gc
import os
import re
import signal
import sys
import threading
import time
from fnmatch import fnmatchcase
from types import FrameType

from .._fork_event._threads import stack_of
from .._fork_event._typing import Any, Iterator
from .._hazard import ACTION, ADVICE, Hazard, tell
from .._libraries import LIBRARIES, Library
from .._libraries._heap import PYPY, loaded, names
from ._scene import UNNAMED, Scene, name_of
from ._threads import active, frames_of_others, verdict

TASKS = "/proc/self/task"
_SLEEP = 4.8  # switch intervals asleep show a native thread: a Python thread's waits are shorter
_PAUSE = 0.006  # seconds between two looks
_LONGEST = 0.25  # seconds that we watch threads, or more if this one had to wait for the processor
_NATIVE = Library("", "find the library that starts it, and import or use it in the child")
_DISARMED = Library("faulthandler", "nothing under forksafe: it is disarmed for the child",
                    severity="fixed")  # fmt: skip
_WATCHDOG = Library("faulthandler", "faulthandler.cancel_dump_traceback_later() before the fork, "
                    "for it hangs the child at its exit; or arm it after the import of forksafe, "
                    "which then disarms it for each fork")  # fmt: skip
_ALL_BLOCKED = "fffffffe7ffbfeff"  # the watchdog's signal mask: no other thread blocks all
# Their exit handlers check the pid, touch nothing outside the process, or are told elsewhere.
_HARMLESS = ("multiprocessing", "multiprocess", "billiard", "concurrent", "weakref", "logging",
             "threading", "tempfile", "forksafe")  # fmt: skip


def find_native_threads(scene: Scene) -> Iterator[Hazard]:
    """Yield the threads that Python does not know."""
    try:
        strangers = _strangers()
    except OSError:
        yield tell("unknown list", "native threads", "", "what threads libraries run")
        return
    groups: dict[tuple[str, Library], list[int]] = {}
    unnamed = _inherited()
    for task, status in strangers.items():
        name = "" if status["Name"] in unnamed else status["Name"]
        groups.setdefault((name, _owner(name, status["SigBlk"])), []).append(task)
    for (name, known), tasks in groups.items():
        severity, remedy = verdict(known)
        what = "a native thread" if len(tasks) == 1 else f"{len(tasks)} native threads"
        likely = f" (most likely {known.name})" if known.name else ""
        becomes = "" if severity == ACTION else ", which the library is prepared for"
        yield tell("native-thread", name or known.name or UNNAMED, f"tid {str(tasks)[1:-1]}",
                   what, repr(name) if name else "without a name", likely, becomes,
                   severity=severity, remedy=remedy, library=known.name)  # fmt: skip


def _owner(name: str, mask: str) -> Library:
    if name:
        named = (k for k in LIBRARIES if any(fnmatchcase(name, p) for p in k.natives.split()))
        return next(named, _NATIVE)
    if mask == _ALL_BLOCKED and names("faulthandler"):
        return _DISARMED if loaded("forksafe._steps._watchdog:_armed") else _WATCHDOG
    files = {line.rpartition("/")[2] for line in _read("/proc/self/maps").splitlines()}
    mapped = [k for k in LIBRARIES if k.mapped and any(k.mapped in file for file in files)]
    if len(mapped) < 2:
        return [*mapped, _NATIVE][0]
    # Which of them it is cannot be told, so the one that would hurt counts.
    mapped.sort(key=lambda known: known.severity != ACTION)
    name = " or ".join(known.name for known in mapped)
    return Library(name, mapped[0].remedy, severity=mapped[0].severity)


def _inherited() -> set[str]:
    """Return the names that a new thread inherits: the process's, and those of Python's threads."""
    tasks = [os.getpid(), *(getattr(thread, "native_id", None) for thread in active())]
    return {_status(task).get("Name", "") for task in tasks}


def _strangers() -> dict[int, dict[str, str]]:
    """Return the native threads, with what the system says of each; OSError if it does not."""
    tasks, raw = _look()
    asleep: dict[int, tuple[str, float]] = {}  # number of switches to it, and since when it is that
    start = time.monotonic()
    need = still = _SLEEP * max(0.005, min(sys.getswitchinterval(), 0.05))
    while len(tasks) > len(raw):
        now = time.monotonic()
        states = {task: _status(task) for task in tasks}
        found = {task: s for task, s in states.items() if s.get("State", "Z")[0] not in "ZX"}
        for task, status in found.items():
            switches = status["voluntary_ctxt_switches"] + status["nonvoluntary_ctxt_switches"]
            if asleep.get(task, ("",))[0] != switches or status["State"][0] in "RD":
                asleep[task] = (switches, now)
        late = now - start > max(_LONGEST, 2 * need)
        if late or all(now - asleep[task][1] > need for task in found):
            unnamed = _inherited()  # those that run Python code have, most likely, no name
            order = sorted(found, key=lambda task: (found[task]["Name"] not in unnamed, task))
            return {task: found[task] for task in order[len(raw) :]}
        time.sleep(_PAUSE)
        need = max(need, still + 4 * (time.monotonic() - now - _PAUSE))  # others waited, too
        there, still_raw = _look()
        tasks, raw = found.keys() & there, raw & still_raw
    return {}  # all that are left run Python code


def _look() -> tuple[set[int], set[FrameType]]:
    """Return the threads without a number in ``threading``, and the frames of Python's among them.

    Those frames are the outermost. They were there both before and after the system was asked: the
    frame of a thread that has just ended must not stand for a native one.
    """
    before, threads = frames_of_others() or {}, active()
    listed = {int(task) for task in os.listdir(TASKS)}
    frames = {ident: f for ident, f in (frames_of_others() or {}).items() if ident in before}
    numbers = {os.getpid(), threading.get_native_id()}  # the interpreter's, and this thread
    for thread in (*threads, *active()):
        number, ident = getattr(thread, "native_id", None), thread.ident
        if number is not None and ident is not None:
            numbers.add(number)
            frames.pop(ident, None)
    return listed - numbers, {[*stack_of(frame)][-1] for frame in frames.values()}


def _status(task: int | None) -> dict[str, str]:
    """Return what the system says of a thread; nothing where it has ended: proc(5)."""
    lines = (line.partition(":") for line in _read(f"{TASKS}/{task}/status").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of the rest."""
    # CPython deletes these in the child: it hangs, or from 3.13 on dies (gh-139759, gh-101437).
    list_all = loaded("_interpreters:list_all") or loaded("_xxsubinterpreters:list_all")  # to 3.12
    # Each is, depending on the version, an id, an object for one, or a tuple that begins with it.
    every = [int(x[0] if isinstance(x, tuple) else x) for x in list_all()] if list_all else []
    for number in sorted(every)[1:]:  # the first is the main interpreter
        yield tell("interpreter", str(number), f"interpreter {number}", number)
    if handlers := _exit_handlers():
        shown = ", ".join(handlers[:10])
        yield tell("exit-handlers", shown, shown, len(handlers))
    for name in ("SIGTERM", "SIGCHLD"):
        handler = signal.getsignal(getattr(signal, name, signal.SIGTERM))
        if callable(handler) and "asyncio" not in name_of(handler):
            yield tell("signal-handler", name, name_of(handler), name, name_of(handler))
    for known in LIBRARIES:
        for module in filter(names, known.loaded.split()):
            if not known.settled and (not known.state or loaded(known.state)):
                name = known.prepared.partition("=")[0]
                shown = name and f"{name}={os.environ.get(name, '(unset)')}"
                yield tell(known.kind, module, module, module, known.trouble, remedy=known.remedy,
                           severity=ACTION if known.state else ADVICE, detail=(shown,),
                           library=known.name)  # fmt: skip
    size = "of unknown size"
    for pages in _read("/proc/self/statm").split()[1:2]:
        size = f"{int(pages) * os.sysconf('SC_PAGE_SIZE') >> 20} MiB resident"
    count = getattr(gc, "get_freeze_count", int)()
    is_frozen = count > 1000  # Python 3.12 freezes a few hundred of its own when it starts
    yield tell("memory", "", "", size, count, remedy="" if PYPY or is_frozen else None)
    if is_frozen:
        yield tell("unknown frozen", "gc.freeze", "", count)


def _exit_handlers() -> list[str]:
    # atexit lists no handlers; but unregister() compares each with `probe`, which notes it, in C.
    handlers: list[Any] = []
    probe: Any = type("_Probe", (), {"__eq__": handlers.append, "__hash__": None})
    atexit.unregister(probe())
    registry = getattr(loaded("weakref:finalize"), "_registry", {})
    handlers += [info.func for info in list(registry.values()) if info.atexit]
    return [name for name in map(name_of, handlers) if re.split("[:.]", name)[0] not in _HARMLESS]
