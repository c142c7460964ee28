"""``forksafe run``: a program, run as ``python PROGRAM`` runs it, with the hook installed first.

The program gets a ``__main__`` module of its own that *stays* in ``sys.modules`` to the end of the
process: exit handlers, threads, pickle and multiprocessing's spawn method look there. (The public
functions of runpy take theirs away when the program's last line has run.) How the process ends is
left to the interpreter: whatever the program raises goes on through here, and only the report of it
is kept free of this file's frames.

``python -m`` and ``python DIRECTORY`` are ``runpy._run_module_as_main()``, called by name from the
interpreter's C code; the same function is called here, so that these are alike to the last frame.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from types import ModuleType

from .. import install
from ._program_file import NotAProgram, find, is_python, is_runnable_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, TracebackType
    from typing import Any

_PYPY = sys.implementation.name == "pypy"
_NO_PROGRAM = 2  # as python has it for a file that is not there


def run(
    program: str, arguments: Sequence[str], *, module: bool = False, command: str = "run"
) -> int:
    """Run a program in this process, after `forksafe.install()`.

    Args:
        program: A path, the name of an installed command, or of a module.
        arguments: What follows in the program's ``sys.argv``.
        module: Whether `program` names a module.
        command: The subcommand that runs it, for what is said where there is no program.

    Returns:
        0 where the program came to its end, 2 where there is none, said in one line on stderr.

    Raises:
        BaseException: Whatever the program raises, to end the process as it would under python.
    """
    try:
        path = program if module else find(program)
        install()
        if module:
            _run_module(program, arguments)
        elif is_runnable_directory(path):
            _run_directory(path, arguments)
        else:
            _run_file(path, arguments)
    except NotAProgram as exc:
        print(f"forksafe {command}: {exc}", file=sys.stderr)
        return _NO_PROGRAM
    except BaseException as exc:
        if not isinstance(exc, SystemExit):
            _report_as_python_does(_without_us(exc.__traceback__))
        raise
    return 0


def _run_file(path: str, arguments: Sequence[str]) -> None:
    full = _absolute(path)
    if path.endswith(".pyc"):
        from importlib.machinery import SourcelessFileLoader

        loader: Any = SourcelessFileLoader("__main__", full)
        code = loader.get_code("__main__")
    else:
        from importlib.machinery import SourceFileLoader

        # PyPy shows its loader the path as it was given.
        loader = SourceFileLoader("__main__", path if _PYPY else full)
        code = _compile(path, full)
    _set_path0(_directory_of(path))
    sys.argv = [path, *arguments]
    main = _fresh_main()
    main.__loader__ = loader
    main.__file__ = full
    if sys.version_info < (3, 15):
        vars(main)["__cached__"] = None
    exec(code, vars(main))  # noqa: S102 - to run a program is what this is for


def _run_directory(path: str, arguments: Sequence[str]) -> None:
    _set_path0(_absolute(path), always=True)
    sys.argv = [path, *arguments]
    _fresh_main()
    _run_module_as_main("__main__", alter_argv=False)


def _run_module(name: str, arguments: Sequence[str]) -> None:
    _set_path0(os.getcwd())
    sys.argv = ["-m", *arguments]  # what python shows to the packages on the way to the module
    _fresh_main()
    _run_module_as_main(name, alter_argv=True)


def _run_module_as_main(name: str, *, alter_argv: bool) -> None:
    import runpy

    function: Any = runpy._run_module_as_main  # type: ignore[attr-defined] # the top of this file
    try:
        function(name, alter_argv)
    except SystemExit as exc:
        # Its own, for a module that is not there: no frame of a program below it.
        traceback = exc.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        if traceback is None or traceback.tb_frame.f_code is not function.__code__:
            raise
        raise NotAProgram(f"{exc.__context__ or exc}") from None


def _fresh_main() -> ModuleType:
    """Put a new ``__main__`` module in the place of our own, as the interpreter makes one."""
    main = ModuleType("__main__")
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    return main


def _compile(path: str, full: str) -> CodeType:
    try:
        with io.open_code(full) as file:
            source = file.read()
    except OSError as exc:
        raise NotAProgram(f"{path}: {exc.strerror}") from None
    try:
        return compile(source, full, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as exc:
        if is_python(path, source):
            raise
        reason = exc.msg if isinstance(exc, SyntaxError) else exc
    raise NotAProgram(f"{path} is not a Python program: {reason}")


def _absolute(path: str) -> str:
    # CPython joins and leaves the rest as it is, since 3.9; PyPy makes it normal.
    if _PYPY:
        return os.path.abspath(path)
    return os.path.join(os.getcwd(), path)


def _directory_of(path: str) -> str:
    # As _PyPathConfig_ComputeSysPath0() does it: symbolic links are followed, but for a file that
    # has no real path (a pipe under /dev/fd).
    real = os.path.realpath(path)
    return os.path.dirname(real if os.path.exists(real) else path)


def _set_path0(directory: str, *, always: bool = False) -> None:
    """Set ``sys.path[0]`` to the program's, in the place of ours.

    Args:
        directory: The program's.
        always: Set it also where the interpreter was told not to (``-P``, ``-I``), as it does
            for a directory or zip file.
    """
    if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
        if always:
            sys.path.insert(0, directory)
    else:
        sys.path[:1] = [directory]


def _without_us(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    return traceback


def _report_as_python_does(traceback: TracebackType | None) -> None:
    """Let the uncaught exception, on its way out, be reported with `traceback`.

    The frames that it still passes add themselves to its own traceback, so that is set right at
    the last moment: when the interpreter calls ``sys.excepthook``.
    """
    hook = getattr(sys, "excepthook", sys.__excepthook__)

    def excepthook(
        exc_type: type[BaseException], exc: BaseException, _: TracebackType | None
    ) -> None:
        sys.excepthook = hook
        sys.last_traceback = traceback
        exc.__traceback__ = traceback
        try:
            hook(exc_type, exc, traceback)
        except Exception as error:
            # The interpreter would report this with the frame of this function.
            _print_failure_of_hook(error, exc)

    sys.excepthook = excepthook


def _print_failure_of_hook(error: Exception, exc: BaseException) -> None:
    # As PyErr_PrintEx(), and PyPy's app_main.py, have it.
    verb = "calling" if _PYPY else "in"
    print(f"Error {verb} sys.excepthook:", file=sys.stderr)
    error.__traceback__ = _without_us(error.__traceback__)
    sys.__excepthook__(type(error), error, error.__traceback__)
    print("\nOriginal exception was:", file=sys.stderr)
    sys.__excepthook__(type(exc), exc, exc.__traceback__)
