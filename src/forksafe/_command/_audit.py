"""``forksafe audit``: load a program as a server would, and say what a fork there would break.

A target is imported. A program runs until it forks a worker, and ends there.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
import textwrap
import threading
from argparse import Namespace
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any, NoReturn

from .. import _hook, install
from .._audit import look
from .._audit._threads import module_of
from .._fork_event import _who
from .._fork_event._threads import stack_of
from .._hazard import ACTION, ADVICE, FIXED, AllowList, Hazard
from ._run import Refused, report, run

_TITLES = {ACTION: ("Needs action", 31), FIXED: ("Fixed by forksafe", 32), ADVICE: ("Advice", 36)}
_exit = os._exit


def audit(program: list[str], options: Namespace, allow: list[str], hook: dict[str, Any]) -> int:
    """Look at a target or a program; tell what a fork there meets; return the exit status."""
    how, name, *arguments = program
    here, target, loaded = os.getpid(), not how and _is_target(name), None

    def end_early(status: int) -> NoReturn:
        if os.getpid() == here:  # and not a child that the program has made
            _fail(f"{name} ended the process: os._exit({status})")
        _exit(status)

    os._exit = end_early
    try:
        os.fstat(1)  # if stdout is closed, a file of the program's would get its number
        tell = partial(_tell, name, AllowList(allow), options, os.dup(1) if options.json else 1)
        if options.json:
            os.dup2(2, 1)
        if target and not arguments:
            loaded = _load(name, hook)
        else:
            _until_fork(program, hook, tell, options.processes)
    except Refused as exc:
        raise Refused(f"{exc}; options go before a module" if target else exc) from None
    except SystemExit as exc:
        _fail(f"{name} failed before any fork: {exc!r}")
    except Exception as exc:
        report(exc)
        _fail(f"{name} failed before any fork")
    status = tell()
    del loaded  # which was to be alive until here
    others = set(threading.enumerate()) - {threading.main_thread()}
    return status if all(thread.daemon for thread in others) else _leave(status)


def _tell(name: str, allowed: AllowList, options: Namespace, fd: int, fork: str = "") -> int:
    """Look, here and now; write the report; return the exit status."""
    hazards = look(allowed, options.locks)
    told = {"target": name, "fork": fork, "hazards": [vars(hazard) for hazard in hazards]}
    colour = os.isatty(fd) and not os.environ.get("NO_COLOR")
    text = json.dumps(told, indent=2) if options.json else _table(name, fork, hazards, colour)
    try:
        with suppress(ValueError, AttributeError):  # the program has closed it
            sys.stdout.flush()
        with open(fd, "w", closefd=False, errors="backslashreplace") as file:
            print(text, file=file)
    except OSError as exc:
        _fail(f"the report cannot be written: {exc}")
    return int(any(hazard.severity == ACTION for hazard in hazards))


def _table(name: str, fork: str, hazards: list[Hazard], colour: bool) -> str:
    width = max(shutil.get_terminal_size().columns - 11, 20)

    def wrapped(label: str, text: str) -> list[str]:  # paths stay in one piece
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        return [f"    {'' if number else label:7}{line}" for number, line in enumerate(lines)]

    counts, body = [], wrapped("fork", fork)
    for severity, (title, code) in _TITLES.items():
        start, end = (f"\033[{code}m", "\033[0m") if colour else ("", "")
        group = [hazard for hazard in hazards if hazard.severity == severity]
        if group or severity == ACTION:
            counts.append(f"{len(group)} {severity}" if group else "nothing needs action")
        body += ["", f"{start}{title}{end}"] if group else []
        for hazard in group:
            # As --allow takes it, where a plain [ would begin a set of characters.
            pattern = ":".join(filter(None, [hazard.kind, hazard.subject.replace("[", "[[]")]))
            body += [f"  {start}{pattern}{end}", *wrapped("what", hazard.summary)]
            body += wrapped("where", hazard.where)
            body += wrapped("why", hazard.detail if severity == ACTION else "")
            body += wrapped("do", hazard.remedy if severity != FIXED else "")
    return "\n".join([f"{name}: {', '.join(counts)}", *body])


def _is_target(word: str) -> bool:
    """Tell ``module[:attr[(...)]]`` from a program to be run: a path, or a command."""
    if os.path.exists(os.path.join(word, "__main__.py")):  # a directory, or a package as well
        return word.isidentifier() and os.path.exists(os.path.join(word, "__init__.py"))
    name = word.partition(":")[0].split(".")
    return all(map(str.isidentifier, name)) and name[-1] != "py" and not os.path.isfile(word)


def _load(target: str, hook: dict[str, Any]) -> Any:
    """Import a module, and return its attribute or what the call gives, as Gunicorn does."""
    install(**hook)
    sys.path.insert(0, os.getcwd())  # as servers do
    name, colon, expression = target.partition(":")
    module = __import__(name, fromlist=["__name__"])
    if not colon:
        return module
    node = ast.parse(expression, mode="eval").body
    if not isinstance(node, ast.Call):
        return attrgetter(expression)(module)
    keywords = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
    return attrgetter(ast.unparse(node.func))(module)(*map(ast.literal_eval, node.args), **keywords)


def _until_fork(program: list[str], hook: dict[str, Any], tell: partial[int], every: bool) -> None:
    """Run a program until it forks a worker; a Process counts as one if `every` is true."""
    here, passed = os.getpid(), set[str]()

    def watch() -> None:
        kind, fork = _who_forks()
        if os.getpid() == here and (kind == "Manager" or (kind == "Process" and not every)):
            passed.add(kind)
            print(f"forksafe audit: no worker's fork: {kind} in {fork}", file=sys.stderr)
        elif os.getpid() == here:
            try:
                _leave(tell(fork))
            finally:
                _leave(2)

    _hook.watch(watch)
    # Else install(on_hazard=...) in the program would replace our function.
    set_watch, _hook.watch = _hook.watch, lambda look: None
    try:
        run(program, hook)
    except SystemExit as exc:
        if exc.code:
            raise
    set_watch(None)
    if "Process" in passed:
        _fail(f"{program[1]} forked nothing else: if these are its workers, say --processes")
    print(f"forksafe audit: {program[1]} came to its end and did not fork", file=sys.stderr)


def _who_forks() -> tuple[str, str]:
    """Return what is made ("Manager", "Process" or "fork"), and the line that makes it."""
    callers = [f for f in stack_of(sys._getframe()) if not module_of(f).startswith("forksafe.")]
    who, kind = _who.who_forks(callers[0]), "fork"
    if isinstance(who, _who.Launch):
        kind = "Process" if who.family != "billiard" else "fork"  # billiard's are Celery's workers
        while module_of(callers[0]).startswith(f"{who.family}."):
            kind = "Manager" if module_of(callers.pop(0)) == f"{who.family}.managers" else kind
    frame, code = callers[0], callers[0].f_code
    return kind, f"{module_of(frame)}.{code.co_name}, {code.co_filename}:{frame.f_lineno}"


def _fail(text: str) -> NoReturn:
    print(f"forksafe audit: {text}", file=sys.stderr)
    _leave(2)


def _leave(status: int) -> NoReturn:
    """End the process here and now, and what multiprocessing has started for it."""
    for process in _who.loaded(_who.submodules("process")):
        for child in process.active_children():
            child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # the program may have closed it
            stream.flush()
    _exit(status)
