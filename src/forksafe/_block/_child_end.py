"""How the child of `forked()` ends: like a program, but only its own part of it.

What the child started and made is finished, in the order of a program's end: non-daemon threads,
exit handlers and multiprocessing finalizers, handlers of logging, files and other objects that do
something at their end, streams. ``os._exit()`` leaves to the parent what the child inherited.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from _thread import _count
from contextlib import suppress

from .._fork_event._typing import Any, Iterable, Never
from .._steps import _exit_handlers
from .._steps._temp_dirs import identity


class Report:
    """The child's end of the pipe by which it tells the parent why it failed."""

    def __init__(self, pipe: int) -> None:
        self._pipe, self._file = pipe, identity(pipe)
        self.pid = 0  # the child's, once known: another process at the block's end reports nothing
        self.text = b""  # the reason in one line, then the traceback, if there is one

    def describe(self, exc: BaseException) -> None:
        reason, kind = str(exc).partition("\n")[0], type(exc).__name__
        reason = f"{kind}: {reason}" if reason else kind
        self.text = reason.encode(errors="backslashreplace")[:500] + b"\n"
        if not isinstance(exc, (SystemExit, KeyboardInterrupt)):
            from traceback import format_exception  # here: few children fail

            lines = "".join(format_exception(type(exc), exc, exc.__traceback__))
            told = lines.encode(errors="backslashreplace")
            most = 8192 - len(self.text) - 50  # so the smallest pipe of Linux takes it at once
            if len(told) > most:
                told = told[-most:].partition(b"\n")[2]
                self.text += b"[its last %d bytes]\n" % len(told)
            self.text += told

    def send(self) -> None:
        """Tell the parent, which reads when this process has ended: so this never waits."""
        # The program may have closed all descriptors, and this one may be another file's by now.
        if self.pid in (0, os.getpid()) and identity(self._pipe) == self._file:
            os.set_blocking(self._pipe, False)
            os.write(self._pipe, self.text)


def end(exc: BaseException | None, report: Report) -> Never:
    """End this process, for the reason that a ``with`` block is left."""
    code = 0 if exc is None else 1
    try:
        if exc is not None:
            with suppress(BaseException):  # a broken stderr or excepthook: the code stays 1
                code = _exit_code(exc, report)
        _exit_handlers.at_end = lambda: _finish(code, report)
        if _count():  # else _shutdown() touches many pages, with nobody to join
            _try(threading._shutdown)  # type: ignore[attr-defined] # what Process does
        _try(atexit._run_exitfuncs)
    finally:
        _finish(code, report)


def _exit_code(exc: Any, report: Report) -> int:
    code: Any = exc.code if isinstance(exc, SystemExit) else exc  # as handle_system_exit()
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(2**63) <= code < 2**63 else 0xFF
    with suppress(BaseException):  # from a __str__() of the program
        report.describe(exc)
    if isinstance(exc, KeyboardInterrupt):
        return 130  # 128 + SIGINT, as shells count
    if code is exc:
        sys.excepthook(type(exc), exc, exc.__traceback__)
    elif sys.stderr is not None:
        print(code, file=sys.stderr)
    return 1


def _try(function: Any, *args: Any) -> None:
    """Call a function, and report what it raises: the rest of the end goes on."""
    try:
        function(*args)
    except BaseException as error:
        _tell(error)


def _tell(error: BaseException) -> None:
    with suppress(BaseException):  # nobody is left to tell
        sys.excepthook(type(error), error, error.__traceback__)


def _finish(code: int, report: Report) -> Never:
    try:
        _try(_end_what_is_own)
        if _flush((sys.stdout, sys.stderr)) and code == 0:
            code = 120  # as Py_RunMain() has it
        if report.text:
            report.send()
    finally:
        os._exit(code)


def _end_what_is_own() -> None:
    handlers, objects = _exit_handlers.own()
    if handlers:
        sys.modules["logging"].shutdown(handlers)
    files = [each for each in objects if type(each).__module__ == "_io"]
    others = [each for each in objects if type(each).__module__ != "_io"]
    _flush(files)  # into a GzipFile, for one, which then has its own end to write
    for each in _holders_first(others) if others else ():
        if not (each is sys.stdout or each is sys.stderr or getattr(each, "gi_running", False)):
            _try(type(each).__del__, each)
    for problem in _flush(files):
        _tell(problem)
    # coverage.py's exit handler is the parent's; in a shared file this would replace its data.
    measuring: Any = getattr(sys.modules.get("coverage"), "Coverage", None)
    current = measuring.current() if measuring is not None else None
    if current is not None and current.get_option("run:parallel"):
        current.save()


def _holders_first(objects: list[Any]) -> list[Any]:
    """Sort objects as reference counts would end them: each before what it holds."""
    if len(objects) < 2:
        return objects
    from graphlib import CycleError, TopologicalSorter  # here: most children have none

    named = {id(each): each for each in objects}
    held: TopologicalSorter[int] = TopologicalSorter()
    for key, each in named.items():
        attributes = getattr(each, "__dict__", None)
        held.add(key, *{*map(id, gc.get_referents(each, attributes))} & named.keys() - {key})
    try:
        return [named[key] for key in held.static_order()][::-1]
    except CycleError:
        return objects  # as the collector does with a cycle


def _flush(files: Iterable[Any]) -> list[BaseException]:
    """Flush the files that are open; return what that raised."""
    errors: list[BaseException] = []
    for file in files:
        try:
            if file is not None:
                file.flush()
        except Exception as error:
            if not isinstance(error, ValueError):  # which says that the file is closed
                errors.append(error)
    return errors
