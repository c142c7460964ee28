"""What the threads that the child will not have were in the middle of: one look, before the fork.

Steps say which functions they are interested in (`interest`). The look walks every stack once, as
late as can be, and only beside other threads. Three places cannot be looked at, and steps must do
without: other threads on a build without a GIL, where they run on while their stacks are read (that
crashes CPython 3.13t); on PyPy, frames that its compiler keeps in a form of its own; and forks made
in C, whose ``before`` half never ran.
"""

from __future__ import annotations

import sys
import time
from _thread import get_ident
from types import CodeType, FrameType

from ._typing import Any, Callable, Iterator, Mapping
from ._who import find
from ._with_bodies import Held, settle, walk

# Seconds without the GIL before each further look, from the last on. A thread that was given a
# lock, and waits for the GIL, shows in a moment that it has the lock. All are spent only where this
# thread holds a lock that another waits for, in a way that its stack does not show.
_PAUSES = (0.032, 0.016, 0.008, 0.004, 0.002, 0.001, 0.0005)

# The functions of interest while they are not loaded; and those that are, by id, as the hash of a
# code object takes all that is in it. The object is kept for that.
_waiting: dict[str, tuple[str, ...]] = {}
_known: dict[int, tuple[str, tuple[str, ...], CodeType]] = {}


def interest(*paths: str, variables: tuple[str, ...] = ("self",)) -> None:
    """Have the look find threads inside of functions, such as ``"module:Class.method"``."""
    _waiting.update(dict.fromkeys(paths, variables))


class Stacks:
    """What one look saw, of the other threads and of this one."""

    def __init__(self, me: int, frames: Mapping[int, FrameType | None]) -> None:
        # By the path of a function: a thread's ident, and the variables wanted of it.
        self.others: dict[str, list[tuple[Any, ...]]] = {}
        self.own: dict[str, list[tuple[Any, ...]]] = {}
        self.held: list[Held] = []
        self.own_held: list[Held] = []
        self.own_globals: set[int] = set()  # of the functions that this thread is inside of, by id
        for path in [each for each in _waiting if each.partition(":")[0] in sys.modules]:
            code = find(*path.split(":"))
            if code is not None:
                _known[id(code)] = path, _waiting.pop(path), code
        for thread, frame in frames.items():
            mine = thread == me
            if mine or others_can_be_read():
                into, held = (self.own, self.own_held) if mine else (self.others, self.held)
                for path, *values in walk(frame, held, _known):
                    into.setdefault(path, []).append((thread, *values))
            if mine:
                self.own_globals = {id(each.f_globals) for each in stack_of(frame)}
        own = {id(one.lock) for one in self.own_held}
        self.held = [one for one in self.held if id(one.lock) not in own]


def stack_of(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that it was called from, the outermost last."""
    try:
        while frame is not None:
            yield frame
            frame = frame.f_back
    except SystemError:
        pass  # PyPy, as above


UNREADABLE = "left alone: without the GIL the stacks of other threads cannot be read"
# Tells whether the frames of other threads can be read without a crash.
others_can_be_read: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)

# In C: gevent's lets other greenlets run.
_time: Any = time
_sleep: Any = _time.sleep if type(_time.sleep) is type(len) else int
# The turn of a thread that forks: from the look to the fork no other is given the GIL. Else, on a
# busy machine, 5 of 1,000 children had a lock that was taken in between. A thread that waits for
# the GIL asks for it after the switch interval, so that is longer meanwhile.
_LONG = 0.05  # seconds
_usual = 0.0  # what it was before; 0 while it is nobody's turn


def look() -> Stacks:
    """Look at all stacks, and begin a turn: `end_turn` is to be called in parent and child."""
    global _usual
    me = get_ident()
    _sleep(0)  # who waits for the GIL already has it before the turn, and then waits anew
    if not _usual:
        _usual = sys.getswitchinterval()
        sys.setswitchinterval(max(_usual, _LONG))
    foreign, pauses = dict[int, Any](), [*_PAUSES]
    while True:
        places = _places(me)
        frames = sys._current_frames()
        stacks = Stacks(me, frames)
        frames.clear()  # this very frame is among them: a cycle, which would keep all the others
        # Where a thread has run meanwhile, 1 of 1,000 children had a lock that it had just taken.
        if (settle(stacks.held, foreign) and places == _places(me)) or not pauses:
            return stacks
        _sleep(pauses.pop())


def _places(me: int) -> list[tuple[int, int]]:
    frames = sys._current_frames() if others_can_be_read() else {}
    frames.pop(me, None)  # this very frame: a cycle, as above
    return [(id(frame), frame.f_lasti) for frame in frames.values()]


def end_turn() -> None:
    global _usual
    if _usual:
        interval, _usual = _usual, 0.0
        sys.setswitchinterval(interval)


def forget_vanished_threads() -> None:
    """Mark every thread but this one as ended, where a fork made in C ran no hook of `threading`.

    Or `threading` would list the parent's threads in the child, and join them at its end, for ever.
    Source: ``threading._after_fork``; ``_PyThread_AfterFork`` in Modules/_threadmodule.c (3.13).
    """
    threading: Any = sys.modules.get("threading")
    try:
        for thread in (*threading._enumerate(), *threading._dangling):
            # The attribute's name in Python 3.14 and later, and the one in 3.13.
            handle: Any = getattr(thread, "_os_thread_handle", getattr(thread, "_handle", None))
            if thread.ident not in (None, get_ident()) and hasattr(handle, "_set_done"):
                handle._set_done()
        threading._after_fork()
        if hasattr(threading, "_thread_shutdown"):
            threading._thread_shutdown = _join_threads
    except Exception:  # noqa: S110 - in the child, before all else: as far as it goes
        pass


def _join_threads() -> None:
    """Join this process's threads: ``_thread._shutdown`` of 3.13 on would join the parent's too."""
    threading = sys.modules["threading"]
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
