"""Which file is PROGRAM, and is it one that this interpreter can run?

A path is what ``python PATH`` would run, its first line unread. A bare name may be an installed
command instead: a script on PATH, whose first line says which interpreter it was installed for.
That must be this one, since another's site-packages are out of reach here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys

_HEAD = 4096  # bytes: longer than any first line that a kernel accepts
_PYTHON_NAME = re.compile(r"(python|pypy)([0-9.]*)t?d?(\.exe)?", re.IGNORECASE)
_PYTHON_SUFFIXES = (".py", ".pyw", ".pyc")


class NotAProgram(Exception):
    """What was asked for cannot be run; the message says why, in one line."""


def find(program: str) -> str:
    """Return the path of `program`, of whatever kind it is.

    Args:
        program: A path, or the bare name of an installed command. A path wins.

    Raises:
        NotAProgram: It is not there, or is no Python program, or another interpreter's.
    """
    named = os.path.basename(program) == program
    lacks_main = is_runnable_directory(program) is False
    if os.path.exists(program) and not lacks_main:
        return program
    # A directory that python cannot run is no rival to a command: gunicorn/ in its own checkout.
    reason = None
    for path in (_on_path(program), _beside_python(program)) if named else ():
        if path is None:
            continue
        try:
            _check(path)
        except NotAProgram as exc:
            reason = reason or exc
        else:
            return path
    if reason is not None:
        raise reason
    if lacks_main:
        raise NotAProgram(f"{program} has no __main__.py")
    where = "no such file, nor a command on PATH" if named else "no such file"
    raise NotAProgram(f"{program}: {where}")


def is_runnable_directory(path: str) -> bool | None:
    """Tell whether `path` is a directory, or zip file, with a ``__main__`` module.

    Returns:
        None where it is neither a directory nor a zip file.
    """
    for hook in sys.path_hooks:  # as PyImport_GetImporter() does it
        try:
            finder = hook(path)
        except ImportError:
            continue
        # Before Python 3.10 zipimporter has the older of the two methods.
        method = "find_spec" if hasattr(finder, "find_spec") else "find_module"
        return getattr(finder, method)("__main__") is not None
    return None


def is_python(path: str, source: bytes) -> bool:
    """Tell whether a file says of itself that it is Python: by its suffix or its first line."""
    if path.lower().endswith(_PYTHON_SUFFIXES):
        return True
    interpreter = _interpreter(path, source[:_HEAD])
    return interpreter is not None and _names_python(interpreter)


def _on_path(name: str) -> str | None:
    return shutil.which(name)


def _beside_python(name: str) -> str | None:
    # The scripts of a virtual environment that was not activated.
    return shutil.which(name, path=os.path.dirname(sys.executable or ""))


def _check(path: str) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as exc:
        raise NotAProgram(f"{path}: {exc.strerror}") from None
    interpreter = _interpreter(path, head)
    if interpreter is None:
        if path.lower().endswith(_PYTHON_SUFFIXES) or is_runnable_directory(path):
            return
        raise NotAProgram(f"{path} is not a Python program")
    if not _names_python(interpreter):
        raise NotAProgram(f"{path} is not a Python program: it is run by {interpreter}")
    if not _is_this(interpreter):
        raise NotAProgram(
            f"{path} belongs to another interpreter, {interpreter} (this is {sys.executable}): "
            "install forksafe there, and use that one's forksafe"
        )


def _interpreter(path: str, head: bytes) -> str | None:
    """Return what the first line names: a path, or a bare name; None without such a line."""
    if not head.startswith(b"#!"):
        return None
    first, _, rest = head[2:].decode("utf-8", "surrogateescape").partition("\n")
    words = _words(first)
    if rest.startswith("'''exec' "):
        # How installers get around the kernel's limit on the line's length, and on blanks in it:
        # to sh this is exec, to Python the beginning of a string.
        return _exec_target(path, rest.partition("\n")[0][len("'''exec' ") :])
    if words and os.path.basename(words[0]) == "env":
        return _env_target(words[1:])
    return words[0] if words else ""


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # an unpaired quote
        return line.split()


def _exec_target(path: str, line: str) -> str:
    if "$(dirname" in line:  # a relocatable environment: the interpreter beside the script
        name = re.search(r"/'?([\w.]+)'? +\"\$0\"", line)
        directory = os.path.dirname(os.path.realpath(path))
        return os.path.join(directory, name.group(1)) if name else directory
    words = _words(line)
    return words[0] if words else ""


def _env_target(words: list[str]) -> str:
    for word in words:
        if word.startswith("-S") and len(word) > 2:
            return word[2:]
        if not word.startswith("-") and "=" not in word:
            return word
    return ""


def _names_python(interpreter: str) -> bool:
    return _PYTHON_NAME.fullmatch(os.path.basename(interpreter)) is not None


def _is_this(interpreter: str) -> bool:
    if os.path.dirname(interpreter):
        return _installation(interpreter) == _installation(sys.executable)
    match = _PYTHON_NAME.fullmatch(interpreter)
    assert match is not None
    kind, version = match.group(1).lower(), match.group(2)
    if kind == "pypy" and sys.implementation.name != "pypy":
        return False
    return version in ("", str(sys.version_info[0]), "{}.{}".format(*sys.version_info))


def _installation(python: str) -> str:
    """Return what tells two interpreters apart: the virtual environment, else the executable."""
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(python)))
    if os.path.exists(os.path.join(prefix, "pyvenv.cfg")):
        return os.path.realpath(prefix)
    return os.path.realpath(python)
