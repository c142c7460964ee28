"""How the child of `forked()` ends: like a program, but only its own part of it.

What it started is finished (non-daemon threads, its exit handlers, its multiprocessing
finalizers, its streams), and what it inherited is left to the parent: ``os._exit``.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading

from .._steps import _barrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn

_INTERRUPTED = 130  # 128 + SIGINT, as shells count
_FLUSH_FAILED = 120  # as Py_RunMain() has it


def end(
    exc_type: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> NoReturn:
    """End this process, for the reason that a ``with`` block is left."""
    code = 0
    try:
        if exc_type is not None and exc is not None:
            code = 1
            code = _exit_code(exc_type, exc, traceback)
    except BaseException:  # noqa: S110 - a broken stderr or excepthook: the code stays 1
        pass
    finally:
        try:
            _barrier.end_by(lambda: _finish(code))
            # The first is what Process does.
            for function in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
                try:
                    function()
                except BaseException as error:  # the rest goes on, and the process ends
                    _tell(error)
        finally:
            _finish(code)


def _finish(code: int) -> NoReturn:
    try:
        if not _flush() and code == 0:
            code = _FLUSH_FAILED
    finally:
        os._exit(code)


def _tell(error: BaseException) -> None:
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:  # noqa: S110 - nobody is left to tell
        pass


def _exit_code(
    exc_type: type[BaseException], exc: BaseException, traceback: TracebackType | None
) -> int:
    if isinstance(exc, SystemExit):
        return _system_exit_code(exc.code)
    if isinstance(exc, KeyboardInterrupt):
        return _INTERRUPTED
    sys.excepthook(exc_type, exc, traceback)
    return 1


def _system_exit_code(code: object) -> int:
    # As handle_system_exit() in CPython's pythonrun.c.
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(2**63) <= code < 2**63 else 0xFF
    if sys.stderr is not None:
        print(code, file=sys.stderr)
    return 1


def _flush() -> bool:
    clean = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception:
            clean = clean and getattr(stream, "closed", False) is True
    return clean
