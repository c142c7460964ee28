"""What the threads that the child will not have were in the middle of: one look, before the fork.

Steps say which functions they are interested in (`interest`). The look walks every stack once, as
late as can be, and only beside other threads. Steps do without it where other threads cannot be
looked at: on a build without a GIL they run on while their stacks are read (that crashes CPython
3.13t); on PyPy ``sys._current_frames()`` alone makes threads in compiled code go wrong, and ends
the process (7.3.11, ``Fatal RPython error``); and of forks made in C no ``before`` half ever ran.
"""

from __future__ import annotations

import gc
import select
import sys
import time
from _thread import get_ident
from types import CodeType, FrameType

from . import _with_bodies
from ._typing import Any, Callable, Iterator, Mapping
from ._who import find
from ._with_bodies import Held, settle, walk

# Seconds without the GIL before each further look: a thread that was given a lock shows it then.
# All are spent only where this thread holds a lock that another waits for, unseen on its own stack.
_PAUSES = (0.0001, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)

# The functions of interest: those not loaded yet; the others by id, since to hash code takes long.
_waiting: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
_known: dict[int, tuple[str, tuple[str, ...], CodeType]] = {}
# Where a thread has nothing to do: the id of its function's code, and the instruction.
_sleeping: dict[tuple[int, int], CodeType] = {}


def interest(
    *paths: str, variables: tuple[str, ...] = ("self",), sleeps: tuple[str, ...] = ()
) -> None:
    """Have the look find threads inside of functions, such as ``"module:Class.method"``.

    `variables`: the local ones that are wanted; none: the look does not tell of the function.
    `sleeps`: the call at which a thread has nothing to do, as a name and attributes of it.
    """
    _waiting.update(dict.fromkeys(paths, (variables, sleeps)))


# Whether no later `before` hook can let other threads run; None while nobody has looked.
comes_last: bool | None = None


def look_behind(hook: object) -> None:
    """See whether hooks that others registered before `hook` come between it and the fork.

    The interpreter goes through a copy of its list of hooks, from the last to the first, and the
    copy is among the youngest objects. The standard library's hooks just take a lock.
    """
    global comes_last
    comes_last = False
    lock = getattr(sys.modules.get("concurrent.futures.thread"), "_global_shutdown_lock", None)
    for generation in (0, 1) if others_can_be_read() else ():
        young = gc.get_objects(generation=generation)
        lists = [[*e] for e in young if type(e) is list and len(e) < 99 and id(hook) in map(id, e)]
        young.clear()  # this very frame may be among them
        for hooks in lists[-1:]:
            others = hooks[[*map(id, hooks)].index(id(hook)) + 1 :]
            others = [each for each in others if getattr(each, "__self__", hook) is not lock]
            comes_last = {getattr(each, "__module__", "") for each in others} <= {"logging"}
            return


class Stacks:
    """What one look saw, of the other threads and of this one."""

    def __init__(self, me: int, frames: Mapping[int, FrameType]) -> None:
        # By the path of a function: the variables wanted of it, for each thread that is inside.
        self.others: dict[str, list[list[Any]]] = {}
        self.own: dict[str, list[list[Any]]] = {}
        self.held: list[Held] = []
        self.own_held: list[Held] = []
        self.places: list[Any] | None = _places(me, frames)  # None has us look again
        # Whether every other thread has nothing to do, and so is in no C code but its wait.
        self.asleep, readable = bool(comes_last), others_can_be_read()
        for path, (variables, sleeps) in list(_waiting.items()):
            code = find(*path.split(":")) if path.partition(":")[0] in sys.modules else None
            if code is not None:
                _waiting.pop(path, None)  # another thread may fork, too
                if variables:
                    _known[id(code)] = path, variables, code
                if sleeps and _with_bodies.spans is not None:
                    offsets = _with_bodies.spans.calls(code, sleeps)
                    _sleeping.update(((id(code), offset), code) for offset in offsets)
        for thread, frame in frames.items():
            if thread == me:
                for path, *values in walk(frame, self.own_held, _known):
                    self.own.setdefault(path, []).append(values)
            elif readable:
                if (id(frame.f_code), frame.f_lasti) not in _sleeping:
                    self.asleep = False
                for path, *values in walk(frame, self.held, _known):
                    self.others.setdefault(path, []).append(values)
        if self.held:
            own = {id(one.lock) for one in self.own_held}
            self.held = [one for one in self.held if id(one.lock) not in own]

    def are_true(self) -> bool:
        """Tell whether no other thread has moved since."""
        frames = current_frames()
        places = _places(get_ident(), frames)
        frames.clear()  # this very frame is among them: a cycle would keep them all
        return places == self.places


def stack_of(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that it was called from, the outermost last."""
    while frame is not None:
        yield frame
        frame = frame.f_back


UNREADABLE = "left alone: this build of Python does not let the stacks of other threads be read"
_PYPY = sys.implementation.name == "pypy"
others_can_be_read: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: not _PYPY)
# The innermost frame of each thread by its ident; on PyPy this thread's alone.
current_frames: Any = (lambda: {get_ident(): sys._getframe()}) if _PYPY else sys._current_frames

_IN_C: Any = type(len)  # gevent's are not, and let other greenlets run
_sleep: Any = time.sleep if type(time.sleep) is _IN_C else int
_select: Any = select.select if type(select.select) is _IN_C else lambda *_: None
# The turn of a thread that forks. A thread that waits for the GIL asks for it after the switch
# interval. While this thread may lose the GIL, the interval is short: each thread that computes
# keeps the GIL for so long. From the last look to the fork it is long: else 5 of 1,000 children had
# a lock taken in between, on a busy machine, and with a short one of 0.05 ms still 1 of 2,000.
_SHORT, _LONG = 0.0010015, 0.0500015  # seconds; CPython cuts them to microseconds
_OURS = (1001, 50001)  # the interval itself tells, since several threads may fork at once
_usual = 0.0  # seconds, the program's own interval


def begin_turn() -> None:
    """Begin a turn in which the GIL may be lost, but not for long: `end_turn` is to be called."""
    global _usual
    if others_can_be_read():  # else there is no look that a turn would be for
        now = sys.getswitchinterval()
        _usual = _usual if round(now * 1e6) in _OURS else now
        sys.setswitchinterval(min(_usual, _SHORT))


def look(again: bool = False) -> Stacks:
    """Look at all stacks in a turn of this thread, whose last part begins."""
    if not others_can_be_read():
        return Stacks(get_ident(), current_frames())
    foreign: dict[int, Any] = {}
    pauses = iter(_PAUSES)
    pause: float = next(pauses) if again else 0
    while True:
        begin_turn()
        if pause:
            _sleep(pause)
            sys.setswitchinterval(max(_usual, _LONG))
        else:
            _select((), (), (), 0)  # if just one thread waits for the GIL, it waits anew
        frames = current_frames()
        stacks = Stacks(get_ident(), frames)
        frames.clear()  # as above
        settled = not stacks.held or settle(stacks.held, foreign)
        if pause == _PAUSES[-1] or (settled and (pause or stacks.asleep)):
            return stacks
        pause = next(pauses)


def _places(me: int, frames: Mapping[int, FrameType]) -> list[tuple[int, int]]:
    if not others_can_be_read():
        return []
    return [(id(frame), frame.f_lasti) for ident, frame in frames.items() if ident != me]


def end_turn() -> None:
    """End the turn: in parent and child, or before the fork if all other threads sleep."""
    if round(sys.getswitchinterval() * 1e6) in _OURS:
        sys.setswitchinterval(_usual)


def forget_vanished_threads() -> None:
    """Mark every thread but this one as ended, where a fork made in C ran no hook of `threading`.

    Else `threading` would list the parent's threads in the child, and wait for them at its end.
    Source: ``threading._after_fork``; ``_PyThread_AfterFork`` in Modules/_threadmodule.c (3.13).
    """
    threading: Any = sys.modules.get("threading")
    try:
        for thread in (*threading._enumerate(), *threading._dangling):
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
