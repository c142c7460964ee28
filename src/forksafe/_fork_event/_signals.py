"""The signals of the forking thread: put off before the fork, due after it, none of them lost.

A handler must never run in a half-reset child, so the signals that Python handles are blocked. The
interpreter reports and *drops* what a handler raises inside an at-fork hook (KeyboardInterrupt,
SystemExit). So the hooks' last act is to take signals that came in meanwhile off the kernel and to
hand them to the interpreter: their handlers run in the program's own frame, behind ``os.fork()``.

The mask is one thread's. Another thread can take the signal, and then the main thread, although it
blocks the signal, runs the handler anywhere in the parent's hooks (in the child CPython forgets
what had arrived). What the handler raises there is raised again when the fork has returned.
"""

from __future__ import annotations

import sys
from itertools import compress
from types import CodeType, FrameType, MethodType, TracebackType

from ._typing import Any, Collection
from ._who import code_of

# Straight from C: there numbers are numbers, and to import ``signal`` takes as long as all this.
c: Any = __import__("_signal")
eventlet: Any = sys.modules.get("eventlet.patcher")  # its own are in Python
c_thread: Any = eventlet.original("_thread") if eventlet else __import__("_thread")

# A fault that is blocked kills the process without faulthandler's traceback: sigaction(2).
_SYNCHRONOUS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGABRT")
_DEFERRED = sorted(c.valid_signals() - {getattr(c, name, 0) for name in _SYNCHRONOUS})

_BLOCK: int = getattr(c, "SIG_BLOCK", 0)
_SETMASK: int = getattr(c, "SIG_SETMASK", 0)
_sigmask: Any = getattr(c, "pthread_sigmask", lambda how, mask: set())
_sigtimedwait: Any = getattr(c, "sigtimedwait", None)
_sigpending: Any = c.sigpending if _sigtimedwait else tuple

# Both mark a signal as arrived without running its handler in the same call.
_trip: Any = c.raise_signal if sys.version_info < (3, 10) else c_thread.interrupt_main


# To set signal handlers in an at-fork hook: PyPy makes the child's thread the main one later.
as_main_thread: Any = type("_Is", (), dict.fromkeys(("__enter__", "__exit__"), lambda *_: None))()
if sys.implementation.name == "pypy":
    import __pypy__  # type: ignore[import-not-found] # PyPy's own

    as_main_thread = __pypy__.thread.signals_enabled


class Signals:
    """The part of a `ForkEvent` that has to do with signals."""

    mask: Collection[int] | None = None  # the program's; None: nothing is blocked
    late: BaseException | None = None  # what a handler raised, for who asked for the fork to raise
    keeps_mask = False  # whether the one who asked for the fork restores `mask` in the parent
    _found: Collection[int] = ()  # the thread's mask before `block()`
    _due: tuple[int, ...] = ()  # signals whose handlers are to run when the fork has returned
    caught: tuple[tuple[int, BaseException], ...] = ()  # what handlers raised in this process

    def block(self, outer: Signals | None = None) -> None:
        """Block what can be put off. `outer`: the fork that this one interrupts."""
        self._found = _sigmask(_BLOCK, ())
        known = outer.mask if outer else None
        self.mask = self._found if known is None else known
        # Only those with a handler: each call makes a set of all blocked ones. Handlers may raise.
        _sigmask(_BLOCK, compress(_DEFERRED, map(callable, map(c.getsignal, _DEFERRED))))

    def restore_mask(self) -> None:
        """Restore the mask, outside of hooks; handlers of pending signals run, and may raise."""
        if self.mask is not None:
            _sigmask(_SETMASK, self._found)  # first: a handler that raises can cut this off
            self.mask = None

    def release_in_hook(self, child: bool) -> list[Any]:
        """Restore the mask, in the child the program's, and put the pending handlers off further.

        The handlers become due when the result is freed: by then no Python frame of ours is left.
        """
        if self.mask is not None:
            mask = self.mask if child else self._found
            for number in _sigpending():
                waits = number not in mask and callable(c.getsignal(number))
                if waits and _sigtimedwait((number,), 0) is not None:
                    self._due += (number,)
            try:
                _sigmask(_SETMASK, mask)
            except BaseException as exc:  # PyPy has no sigtimedwait(): handlers run right here
                if _sigtimedwait is not None:
                    raise
                self.late = exc
            self.mask = None
        caught, self.caught = dict(self.caught), ()  # one for each signal
        for number, raised in caught.items():
            c.signal(number, _raise_once(c.getsignal(number), raised))
            self._due += (number,)
        # A class for each: the finalizer must be a C function, found on the type, for an exception
        # in a frame of ours is dropped. A bound method calls its function with whatever it has.
        trips = (staticmethod(MethodType(_trip, number)) for number in self._due)
        due = [type("_Arrived", (), {"__del__": trip})() for trip in trips] if self._due else []
        self._due = ()
        return due

    def is_of_handler(self, exc: BaseException) -> bool:
        """Tell whether a signal handler raised this, here in a hook; if so, the program gets it."""
        number = signal_of(exc)
        if number is not None:
            exc.__traceback__ = None  # its frames hold objects that the program lets go of
            if self.keeps_mask or _sigtimedwait is None:
                self.late = exc
            else:
                self.caught += ((number, exc),)
        return number is not None


def _raise_once(handler: object, exc: BaseException) -> Any:
    def stand_in(number: int, frame: object) -> None:
        c.signal(number, handler)
        raise exc

    return stand_in


def signal_of(exc: BaseException) -> int | None:
    """Return the signal whose handler raised an exception, None for any other exception."""
    codes = []
    traceback = last = exc.__traceback__
    while traceback is not None:
        codes.append(traceback.tb_frame.f_code)
        last, traceback = traceback, traceback.tb_next
    for number, code in _handlers() if len(codes) > 1 else ():  # a handler has a frame
        if code in codes:
            return number
    # The handler in C has no frame: an exception that no instruction raised is its.
    if type(exc) is not KeyboardInterrupt or c.getsignal(c.SIGINT) is not c.default_int_handler:
        return None
    return None if last is not None and _instruction(last) == _RAISE else int(c.SIGINT)


def _instruction(traceback: TracebackType) -> int:
    return traceback.tb_frame.f_code.co_code[traceback.tb_lasti]


try:
    raise ValueError
except ValueError as exc:
    _RAISE = exc.__traceback__ and _instruction(exc.__traceback__)  # the module `opcode` takes long


def _handlers() -> list[tuple[int, CodeType]]:
    """Return the signals that a function in Python handles, each with its code."""
    handlers = ((number, c.getsignal(number)) for number in c.valid_signals())
    codes = ((number, code_of(each)) for number, each in handlers if callable(each))
    return [(number, code) for number, code in codes if code is not None]


def in_handler(frame: FrameType | None) -> bool:
    """Tell whether a frame, or one that it was called from, is that of a signal handler."""
    codes = [code for _, code in _handlers()]
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame is not None
