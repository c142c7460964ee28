"""``forksafe audit``: load a program as a server would, and say what a fork there would break.

A target is imported and then looked at, as by a server that preloads; a program is run until it is
about to fork for the first time, looked at there, inside ``os.fork()``, and ended. Made for CI: the
exit status says whether anything needs action.

The command ends without waiting for what the target has started: a thread that never ends is just
what it is there to find.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
import threading
import traceback

from .. import _hook, safe_fork
from .._audit import AllowList, look
from .._hazard import ACTION, ADVICE, FIXED, SEVERITIES
from ._run import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Any, NoReturn

    from .._hazard import Hazard

NOTHING = 0
NEEDED = 1
FAILED = 2

_TITLES = {
    ACTION: "needs action",
    FIXED: "fixed by forksafe, where it is active",
    ADVICE: "advice",
}
_COLOURS = {ACTION: "31", FIXED: "32", ADVICE: "36"}
_WIDTH = 100
# Modules whose frames stand between the command and the target.
_ON_THE_WAY = ("forksafe", "importlib", "_frozen_importlib", "_frozen_importlib_external", "runpy")
_INDENT = " " * 4


class Report:
    """How, and on what, the command tells what it found.

    Args:
        target: What is looked at, for the title.
        allow: Patterns of what is accepted.
        locks: Whether to look for locks, too.
        as_json: JSON, alone on stdout; what the target writes there goes to stderr.
    """

    def __init__(self, target: str, allow: Iterable[str], locks: bool, as_json: bool) -> None:
        self._target = target
        self._allowed = AllowList(allow)
        self._locks = locks
        self._as_json = as_json
        # Asked before the target opens anything: its first file would get a closed stdout's number.
        if sys.__stdout__ is None:
            self._fd = -1  # writing will tell
        else:
            self._fd = _apart() if as_json else 1

    def tell(self) -> int:
        """Look, and tell; return the exit status."""
        hazards = look(self._allowed, self._locks)
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the target has closed it, or there is none
        if self._as_json:
            text = json.dumps(
                {"target": self._target, "hazards": [vars(hazard) for hazard in hazards]}, indent=2
            )
        else:
            colour = os.isatty(self._fd) and not os.environ.get("NO_COLOR")
            text = _table(self._target, hazards, colour)
        try:
            _write(self._fd, text + "\n")
        except OSError as exc:
            _say(f"forksafe audit: the report cannot be written: {exc}\n")
            if self._fd == 1:
                _to_nowhere(1)  # or what the target has printed would fail at the exit once more
            return FAILED
        return NEEDED if any(hazard.severity == ACTION for hazard in hazards) else NOTHING


def is_target(word: str) -> bool:
    """Tell ``module[:attr[()]]`` from a program to be run: a path, or a command."""
    name = word.partition(":")[0]
    if os.path.isdir(word):  # a package, or a program in a directory
        if os.path.exists(os.path.join(word, "__main__.py")):
            return os.path.exists(os.path.join(word, "__init__.py")) and word.isidentifier()
    elif os.path.exists(word) or word.endswith(".py"):
        return False
    return all(part.isidentifier() for part in name.split("."))


def audit_target(target: str, report: Report) -> int:
    """Import `target`, then tell. Return the exit status."""
    sys.path.insert(0, os.getcwd())  # as servers do
    try:
        loaded = _load(target)
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt):
            raise
        _show(exc)
        _say(f"forksafe audit: {target} does not load\n")
        return _end(FAILED)
    status = report.tell()
    del loaded
    return _end(status)


def audit_program(program: str, arguments: Sequence[str], module: bool, report: Report) -> int:
    """Run a program until it is about to fork, and tell there. Return the exit status."""
    here = os.getpid()

    def watch() -> None:
        if os.getpid() == here:
            status = FAILED
            try:
                status = report.tell()
            finally:
                _leave(status)

    _hook.watch(watch)
    try:
        if run(program, arguments, module=module, command="audit"):
            return FAILED  # there is no such program, and that was said
        status = NOTHING
    except SystemExit as exc:
        status = FAILED if exc.code else NOTHING
        if not isinstance(exc.code, (int, type(None))):
            _say(f"{exc.code}\n")  # as the interpreter does
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        _show(exc)
        status = FAILED
    _hook.watch(None)
    if status:
        _say(f"forksafe audit: {program} failed before any fork\n")
        return _end(FAILED)
    _say(f"forksafe audit: {program} came to its end and did not fork\n")
    return _end(report.tell())


def refuse_forks(allow: Iterable[str]) -> None:
    """Let ``os.fork()`` raise `UnsafeForkError` where there is something that needs action."""
    accepted = tuple(allow)

    def fork() -> int:
        """Fork as ``os.fork()`` does, or raise: see ``forksafe run --audit=raise``."""
        return safe_fork(on_hazard="raise", allow=accepted)

    os.fork = fork


def _load(target: str) -> Any:
    import importlib

    name, colon, attribute = target.partition(":")
    if colon and not attribute:
        raise ValueError(f"there is no name behind the colon of {target!r}")
    loaded: Any = importlib.import_module(name)
    call = attribute.endswith("()")
    for part in attribute[: -2 if call else None].split(".") if attribute else ():
        loaded = getattr(loaded, part)
    return loaded() if call else loaded


def _of_target(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that is not forksafe's, nor of the import it makes."""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__"))
        if name.partition(".")[0] not in _ON_THE_WAY:
            break
        trace = trace.tb_next
    return trace


def _end(status: int) -> int:
    """End the command: at once where a thread would not let the interpreter end."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            _leave(status)
    return status


def _leave(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the report is out; it was written by itself
    os._exit(status)


def _show(exc: BaseException) -> None:
    _say("".join(traceback.format_exception(type(exc), exc, _of_target(exc.__traceback__))))


def _say(text: str) -> None:
    # Not print(): without a stderr that writes to stdout.
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # nobody to tell


def _apart() -> int:
    """Keep stdout for the report: let what else is written there go to stderr. Return where."""
    import fcntl

    try:
        fd = fcntl.fcntl(1, fcntl.F_DUPFD, 3)  # dup() may return the number of a closed stderr
    except OSError:
        return -1
    os.set_inheritable(fd, False)
    if sys.__stderr__ is None:
        _to_nowhere(1)
    else:
        os.dup2(2, 1)
    return fd


def _to_nowhere(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)


def _write(fd: int, text: str) -> None:
    data = text.encode(errors="backslashreplace")
    while data:
        data = data[os.write(fd, data) :]


def _table(target: str, hazards: list[Hazard], colour: bool) -> str:
    counts = {name: sum(h.severity == name for h in hazards) for name in SEVERITIES}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    lines = [f"{target}: {told or 'nothing found'}"]
    if not counts[ACTION]:
        lines[0] += "; nothing needs action"
    for severity in SEVERITIES:
        group = [hazard for hazard in hazards if hazard.severity == severity]
        if group:
            lines += ["", _painted(_TITLES[severity].capitalize(), _COLOURS[severity], colour)]
        for hazard in group:
            lines += _entry(hazard, colour)
    return "\n".join(lines)


def _entry(hazard: Hazard, colour: bool) -> list[str]:
    head = textwrap.wrap(f"{hazard.kind}: {hazard.summary}", _WIDTH, subsequent_indent=_INDENT)
    kind = _painted(hazard.kind, "1", colour)
    lines = ["  " + head[0].replace(hazard.kind, kind, 1), *(f"  {line}" for line in head[1:])]
    texts = [("where", hazard.where)]
    if hazard.severity == ACTION:
        texts.append(("why", hazard.detail))
    if hazard.severity != FIXED:
        texts.append(("do", hazard.remedy))
    for name, text in texts:
        if text:
            lines += textwrap.wrap(
                text,
                _WIDTH,
                initial_indent=f"{_INDENT}{name:6} ",
                subsequent_indent=f"{_INDENT}{'':6} ",
                break_long_words=False,
            )
    return lines


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colour else text
