"""Which threads of this process are none of Python's: looked at until it is certain.

A thread of Python's is in /proc/self/task before ``threading`` has its number, and for a while
after the interpreter has forgotten it. Its name tells nothing: since 3.14 it bears its own, before
it is registered, and a new thread bears that of the one that started it. So a thread that nobody
knows is watched: one of Python's that starts gets a number, one that ends goes away, and neither
sleeps meanwhile. Where all threads are known nothing is waited for.
"""

from __future__ import annotations

import os
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

TASKS = "/proc/self/task"

# Seconds. A thread that waits for the interpreter wakes at every switch interval to ask for it
# (take_gil() in CPython's ceval_gil.c): it does not sleep longer than that.
_FIRST_PAUSE = 0.001
_STILL = 1.2 * max(0.005, min(sys.getswitchinterval(), 0.05))
_STILL_AMONG_OTHERS = 4 * _STILL  # where threads come and go, and wait for each other's locks
_LATE = 4  # times: how long others may wait, for processors and locks, if this thread had to
_MOST = 1.0
_LONGEST = 0.25
_TURNS = 5  # looks between which it ran, and in all that time came to no end


def unknown() -> tuple[dict[int, bool], int]:
    """Return the threads that the system lists and ``threading`` does not know.

    Returns:
        By number of the system, whether it is certain that the thread neither starts nor ends; and
        how many of them run Python code all the same (``_thread.start_new_thread``, and C code that
        calls into Python): which, nobody tells.

    Raises:
        OSError: This system has no such list.
    """
    look = _Look()
    raw, starting = look.raw, look.starting
    watched = {task: _Watched(task) for task in look.strangers}
    start = time.monotonic()
    pause, overslept, moving = _FIRST_PAUSE, 0.0, False
    while len(watched) > len(raw):
        need = (_STILL_AMONG_OTHERS if moving else _STILL) + min(_LATE * overslept, _MOST)
        starting = [thread for thread in starting if _is_starting(thread)]
        late = time.monotonic() - start > max(_LONGEST, 2 * need)
        if late or (not starting and all(task.is_certain(need) for task in watched.values())):
            certain = {number: task.is_certain(need, late) for number, task in watched.items()}
            return certain, len(raw)
        asleep = time.monotonic()
        time.sleep(pause)
        overslept = max(overslept, time.monotonic() - asleep - pause)
        pause = _STILL
        before, look = look, _Look()
        moving = moving or look.tasks != before.tasks
        raw &= look.raw
        watched = {
            number: task
            for number, task in watched.items()
            if number in look.strangers and task.look_again()
        }
    return {}, 0  # those that are left are just those that run Python code


class _Look:
    """Who is there at one moment; what Python says was asked both before and after the system.

    Attributes:
        tasks: All threads, by number of the system.
        strangers: Those that ``threading`` knows no number of.
        raw: Outermost frames of threads of Python's that are surely among the strangers.
        starting: Threads that may be among the strangers, for ``threading`` starts them just now.
    """

    def __init__(self) -> None:
        raw, numbers = _python()
        self.tasks = {int(task) for task in os.listdir(TASKS)}
        self.starting = _limbo()  # before its threads' numbers are asked for: none is missed
        raw_after, numbers_after = _python()
        self.raw = raw & raw_after
        # The first thread is the interpreter's, also when Python's main thread has ended.
        ours = {os.getpid(), threading.get_native_id()}
        self.strangers = self.tasks - numbers - numbers_after - ours


class _Watched:
    """A thread, and what it did since the first look."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._clock = _processor_time(number)
        self._since = time.monotonic()  # when it was last seen to run, or about to
        self._turns = 0

    def look_again(self) -> bool:
        """Look at what it does; return whether it is still there."""
        state = _state(self._number)
        clock = _processor_time(self._number)
        if clock != self._clock:
            self._turns += 1
        if clock != self._clock or state in ("R", "D"):  # running, or about to: proc_pid_stat(5)
            self._since = time.monotonic()
        self._clock = clock
        return state not in ("", "Z", "X")

    def is_certain(self, need: float, late: bool = False) -> bool:
        """Tell whether it neither starts nor ends.

        Args:
            need: For how many seconds it must have slept.
            late: Whether it was watched as long as may be.
        """
        # What it worked proves nothing: one that ends may have to ask for the interpreter, again
        # and again, to free its last objects.
        return time.monotonic() - self._since > need or (late and self._turns >= _TURNS)


def _python() -> tuple[set[FrameType], set[int]]:
    """Return the outermost frames of threads without a number of the system, and the numbers."""
    own, frames = sys._getframe(), sys._current_frames()
    numbers, numbered = set(), set()
    for thread in (*_limbo(), *list(getattr(threading, "_active", {}).values())):
        number = getattr(thread, "native_id", None)
        if number is not None:
            numbers.add(number)
            numbered.add(thread.ident)
    raw: set[FrameType] = set()
    for ident, frame in frames.items():
        # Not by get_ident(): gevent puts that of a greenlet in its place.
        if ident in numbered or frame is own:
            continue
        outermost = _outermost(frame)
        number = getattr(_of_bootstrap(outermost), "native_id", None)
        if number is not None:
            numbers.add(number)  # it starts or ends
        else:
            raw.add(outermost)  # not its ident: another may have that in a moment
    frames.clear()
    return raw, numbers


def _outermost(frame: FrameType) -> FrameType:
    try:
        while frame.f_back is not None:
            frame = frame.f_back
    except SystemError:
        pass  # PyPy's compiler keeps the frames of another thread in a form of its own
    return frame


def _of_bootstrap(frame: FrameType) -> threading.Thread | None:
    """Return the Thread that this outermost frame is of; None for a raw thread."""
    bootstrap: Any = getattr(threading.Thread, "_bootstrap", None)
    if frame.f_code is not getattr(bootstrap, "__code__", None):
        return None
    thread = frame.f_locals.get("self")
    return thread if isinstance(thread, threading.Thread) else None


def _limbo() -> list[threading.Thread]:
    return list(getattr(threading, "_limbo", {}).values())


def _is_starting(thread: threading.Thread) -> bool:
    return getattr(thread, "native_id", None) is None and any(thread is other for other in _limbo())


def _state(task: int) -> str:
    """Return a letter; nothing where the thread has ended."""
    try:
        with open(f"{TASKS}/{task}/stat", encoding="utf-8", errors="replace") as file:
            # The third field, behind the name, which may have spaces and parentheses.
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _processor_time(task: int) -> float:
    # What pthread_getcpuclockid(3) makes of a thread, without the thread having to be alive: the
    # kernel's own number of that clock (include/linux/posix-timers.h), which it checks.
    try:
        return time.clock_gettime(~task << 3 | 6)
    except OSError:
        return 0.0  # ended; or a sandbox without such clocks, where its state must do
