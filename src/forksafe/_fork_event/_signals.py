"""Signals around a fork: blocked before, restored after, none of them lost.

A handler must never run in a half-reset child, so everything that can be put off is blocked in
the forking thread. Restoring the mask inside an at-fork hook has a catch: a handler that raises
(KeyboardInterrupt; SystemExit from a SIGTERM handler) would raise into the hook, where the
interpreter reports and *drops* the exception, and the Ctrl-C would be lost. So signals that came in
meanwhile are taken off the kernel and handed to the interpreter as the hook's last act; their
handlers run when ``os.fork()`` has returned, in the program's own frame. (Unless another at-fork
hook of Python code, registered later, is next: as without forksafe, it runs in there. `safe_fork()`
and `forked()` restore the mask behind all hooks.)

A mask is a thread's. Where there are others, one of them takes the signal, and the main thread runs
the handler although it blocks the signal: anywhere in the parent's hooks. (Not in the child, where
CPython forgets what had arrived.) What it raises there is lost, and the hooks are made for that.
"""

from __future__ import annotations

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import Any

# Straight from C, where numbers are numbers: the functions of ``signal`` turn each into an enum
# member, and importing it costs as much as all of forksafe.
_c: Any = __import__("_signal")

# A fault that is blocked kills the process without faulthandler's traceback: sigaction(2).
_SYNCHRONOUS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGABRT")
DEFERRED: set[int] = (
    {int(number) for number in _c.valid_signals()}
    - {int(getattr(_c, name)) for name in _SYNCHRONOUS if hasattr(_c, name)}
    if hasattr(_c, "pthread_sigmask")
    else set()
)

# Windows has none of them.
BLOCK: int = getattr(_c, "SIG_BLOCK", 0)
SETMASK: int = getattr(_c, "SIG_SETMASK", 0)
sigmask: Any = getattr(_c, "pthread_sigmask", lambda how, mask: set())
_sigpending: Any = getattr(_c, "sigpending", None)
_sigtimedwait: Any = getattr(_c, "sigtimedwait", None)

# Both mark a signal as arrived without running its handler in the same call.
_trip: Any = _c.raise_signal if sys.version_info < (3, 10) else _thread.interrupt_main


class _Already:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass


# To set signal handlers and the wakeup fd in the child, within an at-fork hook. The forking thread
# is the main one by then; PyPy makes it so only when the hooks have run.
as_main_thread: AbstractContextManager[Any]
if sys.implementation.name == "pypy":
    import __pypy__  # type: ignore[import-not-found] # PyPy's own

    as_main_thread = __pypy__.thread.signals_enabled
else:
    as_main_thread = _Already()


def set_mask(mask: Iterable[int]) -> None:
    """Set this thread's signal mask; handlers of pending signals run, and may raise, in here."""
    sigmask(SETMASK, mask)


def restore(mask: Iterable[int]) -> object:
    """Set this thread's signal mask, keeping back handlers of signals that are pending.

    Args:
        mask: The mask to set, as `current` gave it.

    Returns:
        Something to return from the at-fork hook and to hold on to nowhere else: when the
        interpreter drops it, with no Python frame of ours left, the handlers become due.
    """
    taken = None
    if _sigtimedwait and _sigpending:
        pending = _sigpending()
        if pending:
            taken = [_arrived(number) for number in _take(pending, mask)]
    sigmask(SETMASK, mask)
    return taken


def _take(pending: Iterable[int], mask: Iterable[int]) -> list[int]:
    numbers = []
    for number in pending:
        if number in mask or not callable(_c.getsignal(number)):
            continue  # stays pending, or is the kernel's business
        if _sigtimedwait((number,), 0) is not None:
            numbers.append(number)
    return numbers


def _arrived(number: int) -> object:
    # A class for each: the finalizer must be a C function, found on the type. A Python one would
    # run the handler in its own frame, and an exception there is dropped again. A bound method
    # calls its function with what it is bound to, whatever that is.
    return type("_Arrived", (), {"__del__": staticmethod(_Bound(_trip, number))})()


_Bound: Any = type(_Already().__enter__)
