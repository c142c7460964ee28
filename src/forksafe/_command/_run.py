"""``forksafe run``: a program, run as ``python PROGRAM`` runs it, with the hook installed first.

The program's ``__main__`` stays in ``sys.modules`` to the end of the process, where exit handlers,
threads and pickle look for it; the public functions of runpy take it away.
"""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import re
import runpy
import shlex
import shutil
import sys
import textwrap
from importlib.machinery import BuiltinImporter, SourceFileLoader
from os.path import basename, dirname, exists, isdir, join, realpath
from types import CodeType, ModuleType
from typing import Any

from .. import install

_PYTHON = re.compile(r"(python|pypy)(\d*(?:\.\d+)?)t?", re.IGNORECASE)
_STDIN = "<stdin>"


class Refused(Exception):
    """The command cannot do what it was asked for: exit status 2, and a message of one line."""


def run(program: list[str], hook: dict[str, Any]) -> int:
    """Run a program, as `cut()` returns it, after ``install(**hook)``; return 0, or raise as it."""
    how, name, arguments, installed = _resolve(program)
    full, argv = join(os.getcwd(), name), [how or name, *arguments]
    install(**hook)
    try:
        if how == "-m":
            _start(argv, os.getcwd(), name)
        elif how == "-c":
            source = textwrap.dedent(name) if sys.version_info >= (3, 14) else name
            code = compile(source, "<string>", "exec", dont_inherit=True)
            _start(argv, "", code, __loader__=BuiltinImporter)
        elif name in ("", "-"):
            _start(argv, "", _compile(_STDIN), __loader__=BuiltinImporter, __file__=_STDIN)
        elif pkgutil.get_importer(name):  # a directory or zip file
            _start(argv, full, "__main__")
        else:
            code, loader = _compile(full, installed), SourceFileLoader("__main__", full)
            _start(argv, dirname(realpath(name)), code, __loader__=loader, __file__=full)
    except BaseException as exc:
        if not isinstance(exc, (SystemExit, Refused)):
            report(exc)
        raise
    return 0


def report(exc: BaseException) -> None:
    """Report what a program raised, from its own first frame on; python shall not repeat it."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
        trace = trace.tb_next
    sys.excepthook(type(exc), exc.with_traceback(trace), trace)
    sys.excepthook = lambda *_: None


def _start(argv: list[str], directory: str, code: CodeType | str, **names: Any) -> None:
    """Run code, or the module of that name, as ``__main__``, with `directory` as sys.path[0]."""
    isolated = getattr(sys.flags, "safe_path", False) or sys.flags.isolated
    if not isolated or code == "__main__":  # as python does with -I and -P
        sys.path[: 0 if isolated else 1] = [directory]
    sys.argv = argv
    module = sys.modules["__main__"] = ModuleType("__main__")
    vars(module).update(names, __builtins__=builtins)
    if isinstance(code, str):
        # The interpreter's C code calls it by its name, too, for -m and for directories.
        runpy._run_module_as_main(code, argv[0] == "-m")  # type: ignore[attr-defined] # not public
    else:
        exec(code, vars(module))  # noqa: S102 - to run a program is what this is for


def _resolve(program: list[str]) -> tuple[str, str, list[str], bool]:
    """Return how to run a program; its name, or path; its arguments; whether it is a command."""
    how, name, *arguments = program
    if not how and _PYTHON.fullmatch(basename(name)):
        if not _is_this(name):
            raise Refused(f"{name} is another interpreter than this one, {sys.executable}")
        own, program = cut(arguments)
        if own or (arguments and not program):
            raise Refused(f"python {arguments[0]}: write python {arguments[0]} -m forksafe run ...")
        how, name, *arguments = program or ["", ""]
    # A directory that python cannot run is no rival to a command: gunicorn/ in its own checkout.
    lacks_main = isdir(name) and not exists(join(name, "__main__.py"))
    if how or name in ("", "-") or (exists(name) and not lacks_main):
        return how, name, arguments, False
    places = os.pathsep.join([dirname(sys.executable), os.environ.get("PATH", "")])
    path = shutil.which(name, path=places) if name == basename(name) else None
    if path is None and not lacks_main:
        raise Refused(f"{name}: no such file, nor a command on PATH")
    return how, path or name, arguments, True


def _compile(path: str, installed: bool = False) -> CodeType:
    """Compile a file; refuse it, in one line, where it is no program for this python."""
    try:
        with open(0, "rb", closefd=False) if path == _STDIN else io.open_code(path) as file:
            source = file.read()
    except OSError as exc:
        raise Refused(f"{path}: {exc.strerror}") from None
    interpreter = _interpreter(source)
    name = basename(interpreter)
    if name in ("sh", "bash", "dash", "zsh", "ksh", "fish"):
        raise Refused(f"{path} is a shell script, no Python program: put forksafe run inside it")
    if installed and _PYTHON.fullmatch(name) and not _is_this(interpreter):
        raise Refused(f"{path} belongs to another interpreter, {interpreter}: use its forksafe")
    try:
        return compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as exc:
        if path.endswith((".py", _STDIN)) or _PYTHON.fullmatch(name):
            raise
        reason = f"{name} runs it" if name else exc.msg if isinstance(exc, SyntaxError) else exc
    raise Refused(f"{path} is not a Python program: {'it is a binary' if 0 in source else reason}")


def _interpreter(source: bytes) -> str:
    """Return what runs a script, by its first line, or ""."""
    if not source.startswith(b"#!"):
        return ""
    first, second = (source[2:4096].decode("utf-8", "replace") + "\n\n").split("\n", 2)[:2]
    # Where the path is too long, installers write a line that sh executes, a string to Python.
    words = shlex.split(second)[1:] if second.startswith("'''exec' ") else first.split()
    words = [w for w in words if w[:1] != "-" and "=" not in w and basename(w) != "env"] or [""]
    return "python" if words[0].startswith("$(dirname ") else words[0]  # the one beside the script


def _is_this(python: str) -> bool:
    """Tell whether a path, or a bare name like ``python3``, stands for this interpreter."""
    if dirname(python):
        prefix = dirname(dirname(os.path.abspath(python)))
        if sys.prefix != sys.base_prefix or exists(join(prefix, "pyvenv.cfg")):
            return realpath(prefix) == realpath(sys.prefix)
        return realpath(python) == realpath(sys.executable)
    kind, version = _PYTHON.fullmatch(python).groups()  # type: ignore[union-attr] # asked before
    ours = "{}.{}".format(*sys.version_info)
    return kind.lower() in ("python", sys.implementation.name) and version in ("", ours[0], ours)


def cut(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the options before a program; and ``-m``, ``-c`` or "", its name, its arguments."""
    for index, word in enumerate(words):
        own, rest = words[:index], words[index + 1 :]
        if own and own[-1] in ("--allow", "--audit"):
            continue  # the word belongs to that option
        if word[:2] in ("-m", "-c"):
            rest = [word[2:], *rest] if word[2:] else rest  # -mMODULE, as python takes it
            return own, [word[:2], *rest] if rest else []
        if word == "--":
            return own, ["", *rest] if rest else []
        if word == "-" or not word.startswith("-"):
            return own, ["", word, *rest]
    return words, []
