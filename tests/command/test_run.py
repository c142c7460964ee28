"""``forksafe run PROGRAM`` is ``python PROGRAM``, but for the hook: both are run, and compared."""

from __future__ import annotations

import os
import py_compile
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import forksafe

PYPY = sys.implementation.name == "pypy"
TIMEOUT = 60


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def ended(
    command: list[str], cwd: Path, stdin: str = "", env: dict[str, str] | None = None
) -> Ended:
    process = subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, **(env or {})},
    )
    return Ended(process.returncode, process.stdout, process.stderr)


def under_python(cwd: Path, *words: str, options: tuple[str, ...] = (), stdin: str = "") -> Ended:
    return ended([sys.executable, *options, *words], cwd, stdin)


def under_forksafe(
    cwd: Path,
    *words: str,
    options: tuple[str, ...] = (),
    stdin: str = "",
    env: dict[str, str] | None = None,
) -> Ended:
    return ended([sys.executable, *options, "-m", "forksafe", "run", *words], cwd, stdin, env)


def same(cwd: Path, *words: str, options: tuple[str, ...] = (), stdin: str = "") -> Ended:
    """Assert that both end alike, to the last byte; return how."""
    plain = under_python(cwd, *words, options=options, stdin=stdin)
    ours = under_forksafe(cwd, *words, options=options, stdin=stdin)
    assert ours == plain
    return ours


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def refused(cwd: Path, *words: str, env: dict[str, str] | None = None) -> str:
    """Assert that `words` are refused in one line with exit status 2; return the line."""
    ours = under_forksafe(cwd, *words, env=env)
    assert ours.returncode == 2
    assert ours.stdout == ""
    assert ours.stderr.startswith("forksafe run: ")
    assert ours.stderr.count("\n") == 1
    return ours.stderr.strip()


SHOW = (
    "import sys",
    "print(sys.argv, sys.path)",
    "main = sys.modules['__main__']",
    "assert vars(main) is globals()",
    "spec = main.__spec__",
    "print(spec and (spec.name, spec.origin, spec.parent))",
    "for name, value in sorted(vars(main).items()):",
    "    if name.startswith('__') and name != '__spec__':",
    "        shown = type(value) if name in ('__builtins__', '__loader__') else value",
    "        print(name, shown)",
    "print(getattr(__loader__, 'path', None), getattr(__loader__, 'name', None))",
)


@pytest.fixture
def show(tmp_path: Path) -> Path:
    """A directory with ``show.py``, which prints all that tells how a program was started."""
    write(tmp_path / "show.py", *SHOW)
    return tmp_path


class TestHowItIsStarted:
    def test_by_file(self, show: Path) -> None:
        assert "show.py" in same(show, "show.py", "a", "-b").stdout

    @pytest.mark.parametrize("spelling", ["./show.py", "sub/../show.py", "{}/show.py"])
    def test_by_other_spellings_of_the_path(self, show: Path, spelling: str) -> None:
        (show / "sub").mkdir()
        assert same(show, spelling.format(show)).returncode == 0

    def test_from_another_directory(self, show: Path) -> None:
        """sys.path[0] is the program's directory, not the current one."""
        (show / "sub").mkdir()
        ours = same(show / "sub", "../show.py")
        assert f"'{show}'" in ours.stdout

    def test_by_symbolic_link(self, show: Path) -> None:
        """sys.path[0] is where the link leads to."""
        (show / "bin").mkdir()
        (show / "bin" / "link").symlink_to("../show.py")
        assert f"'{show}'" in same(show / "bin", "link").stdout

    def test_by_module(self, show: Path) -> None:
        assert same(show, "-m", "show", "-m", "--help").returncode == 0

    def test_by_package_and_by_module_in_a_package(self, show: Path) -> None:
        write(show / "pkg" / "__init__.py", "import sys", "print('init', sys.argv)")
        write(show / "pkg" / "__main__.py", "from . import __name__ as parent", *SHOW)
        write(show / "pkg" / "mod.py", *SHOW)
        assert same(show, "-m", "pkg", "x").returncode == 0
        assert same(show, "-m", "pkg.mod", "x").returncode == 0

    def test_by_module_with_the_option_joined(self, show: Path) -> None:
        assert same(show, "-mshow", "x").returncode == 0

    @pytest.mark.parametrize("spelling", ["app", "./app", "app/"])
    def test_by_directory(self, tmp_path: Path, spelling: str) -> None:
        write(tmp_path / "app" / "__main__.py", *SHOW)
        assert same(tmp_path, spelling, "x").returncode == 0

    def test_by_zip_file(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "app.pyz", "w") as file:
            file.writestr("__main__.py", "\n".join(["import inside", *SHOW]))
            file.writestr("inside.py", "")
        assert same(tmp_path, "app.pyz", "x").returncode == 0

    @pytest.mark.skipif(PYPY, reason="PyPy's app_main.py has its own way, without a __loader__")
    def test_by_compiled_file(self, show: Path) -> None:
        py_compile.compile(str(show / "show.py"), str(show / "other.pyc"))
        assert same(show, "other.pyc").returncode == 0

    def test_from_a_pipe(self, show: Path) -> None:
        """As ``python <(...)`` does: what is no regular file is still read."""
        read, write_end = os.pipe()
        os.write(write_end, b"print('from a pipe')")
        os.close(write_end)
        command = [sys.executable, "-m", "forksafe", "run", f"/dev/fd/{read}"]
        process = subprocess.run(
            command, cwd=show, pass_fds=[read], capture_output=True, text=True, timeout=TIMEOUT
        )
        os.close(read)
        assert (process.returncode, process.stdout) == (0, "from a pipe\n"), process.stderr

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is new in Python 3.11")
    def test_with_safe_path(self, show: Path) -> None:
        write(show / "app" / "__main__.py", *SHOW)
        for program in ("show.py", "app"):
            assert same(show, program, options=("-P",)).returncode == 0
        assert f"'{show}'" not in same(show, "show.py", options=("-P",)).stdout

    def test_all_that_follows_belongs_to_the_program(self, show: Path) -> None:
        words = ("-m", "x", "--", "--help", "--version", "--", "")
        assert str(["show.py", *words]) in same(show, "show.py", *words).stdout

    def test_a_program_whose_name_begins_with_a_dash(self, show: Path) -> None:
        (show / "show.py").rename(show / "-show.py")
        ours = under_forksafe(show, "--", "-show.py", "--help")
        assert ours.stdout.startswith("['-show.py', '--help']")

    def test_the_hook_is_installed(self, tmp_path: Path) -> None:
        program = write(tmp_path / "p.py", "import forksafe", "print(forksafe.installed())")
        assert under_forksafe(tmp_path, str(program)) == Ended(0, "True\n", "")
        assert under_python(tmp_path, str(program)) == Ended(0, "False\n", "")


class TestHowItEnds:
    @pytest.mark.parametrize(
        "code",
        [
            "sys.exit()",
            "sys.exit(0)",
            "sys.exit(7)",
            "sys.exit(-1)",
            "sys.exit(300)",
            "sys.exit('a message')",
            "sys.exit((1, 2))",
            "raise SystemExit",
            "os._exit(9)",
            "os.kill(os.getpid(), 15)",
            "os.kill(os.getpid(), 2)",
            "raise KeyboardInterrupt",
            "raise BaseException('unusual')",
            "os.abort()",
        ],
    )
    def test_exit_status(self, tmp_path: Path, code: str) -> None:
        write(tmp_path / "p.py", "import os, sys", "print('begun', flush=True)", code)
        assert same(tmp_path, "p.py").stdout == "begun\n"
        assert same(tmp_path, "-m", "p").stdout == "begun\n"

    def test_by_sigint_from_outside(self, tmp_path: Path) -> None:
        """Ctrl-C: the traceback, the exit handlers, and then death by the signal."""
        write(
            tmp_path / "p.py",
            "import atexit, signal",
            "atexit.register(print, 'bye')",
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])",
            "print('.', flush=True)",
            "input()  # the signal has been sent: it arrives in the next line",
            "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])",
        )
        outcomes = []
        for command in ([], ["-m", "forksafe", "run"]):
            process = subprocess.Popen(
                [sys.executable, *command, "p.py"],
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            assert process.stdout.readline() == ".\n"
            process.send_signal(signal.SIGINT)
            outcomes.append((*process.communicate("\n", timeout=TIMEOUT), process.returncode))
        plain, ours = outcomes
        assert ours == plain
        assert plain[2] == -signal.SIGINT
        assert "KeyboardInterrupt" in plain[1]

    @pytest.mark.parametrize(
        "lines",
        [
            ("def f():", "    1/0", "f()"),
            ("try:", "    1/0", "except ZeroDivisionError:", "    raise ValueError('second')"),
            ("raise ValueError('a') from KeyError('b')",),
            ("import nosuch_module",),
            ("x = )",),
            ("print('ü'", "  indented"),
            ("exec('1/0')",),
            ("import json; json.loads('{')",),
        ],
    )
    def test_traceback(self, tmp_path: Path, lines: tuple[str, ...]) -> None:
        write(tmp_path / "p.py", *lines)
        for words in (("p.py",), ("-m", "p")):
            ours = same(tmp_path, *words)
            assert ours.returncode == 1
            assert "forksafe" not in ours.stderr

    def test_an_encoding_that_there_is_not(self, tmp_path: Path) -> None:
        """Which python finds by reading the file as a stream, and words differently."""
        write(tmp_path / "p.py", "# coding: nosuch", "1")
        plain, ours = under_python(tmp_path, "p.py"), under_forksafe(tmp_path, "p.py")
        assert ours[:2] == plain[:2] == (1, "")
        for ended in (plain, ours):
            assert "SyntaxError: " in ended.stderr
            assert "nosuch" in ended.stderr
        assert "Traceback" not in ours.stderr

    def test_traceback_in_a_directory(self, tmp_path: Path) -> None:
        write(tmp_path / "app" / "__main__.py", "1/0")
        assert "ZeroDivisionError" in same(tmp_path, "app").stderr

    def test_a_package_that_fails_on_the_way_to_the_module(self, tmp_path: Path) -> None:
        write(tmp_path / "pkg" / "__init__.py", "raise RuntimeError('no')")
        write(tmp_path / "pkg" / "mod.py")
        assert "RuntimeError: no" in same(tmp_path, "-m", "pkg.mod").stderr

    def test_excepthook_of_the_program(self, tmp_path: Path) -> None:
        """It gets the program's frames only, and finds itself in its place."""
        hook = (
            "import sys, traceback",
            "def hook(kind, exc, tb):",
            "    print(kind, exc, sys.excepthook is hook, exc.__traceback__ is tb)",
            "    print(sys.last_traceback is tb, traceback.extract_tb(tb))",
            "sys.excepthook = hook",
        )
        write(tmp_path / "p.py", *hook, "1/0")
        assert "True True" in same(tmp_path, "p.py").stdout

    def test_excepthook_that_fails(self, tmp_path: Path) -> None:
        hook = ("import sys", "def hook(*args):", "    print(hex('no'))", "sys.excepthook = hook")
        write(tmp_path / "p.py", *hook, "1/0")
        ours = under_forksafe(tmp_path, "p.py")
        assert "Original exception was" in ours.stderr
        assert "forksafe" not in ours.stderr
        if not PYPY:  # which shows a frame of its own app_main.py here
            assert ours == under_python(tmp_path, "p.py")

    def test_exit_handlers_and_threads_find_their_globals(self, tmp_path: Path) -> None:
        """The program's namespace lives as long as the process."""
        write(
            tmp_path / "p.py",
            "import atexit, pickle, sys, threading, time",
            "done = threading.Event()",
            "def function(): return word",
            "def later():",
            # Not join(): on PyPy that can make threading._shutdown() fail, under python too.
            "    while threading.main_thread().is_alive():",
            "        time.sleep(0.01)",
            "    print('thread', function(), flush=True)",
            "    done.set()",
            "def at_exit():",
            "    done.wait(10)",
            "    print('exit', pickle.loads(pickle.dumps(function))(), __name__)",
            "atexit.register(at_exit)",
            "threading.Thread(target=later).start()",
            "word = 'globals'",
        )
        assert same(tmp_path, "p.py").stdout == "thread globals\nexit globals __main__\n"

    def test_stdin_is_the_programs(self, tmp_path: Path) -> None:
        write(tmp_path / "p.py", "import sys", "print(input(), sys.stdin.read())")
        assert same(tmp_path, "p.py", stdin="a\nb\nc").stdout == "a b\nc\n"

    def test_warnings_of_main_are_shown(self, tmp_path: Path) -> None:
        """DeprecationWarning is shown where ``__main__`` is to blame."""
        write(tmp_path / "p.py", "import warnings", "warnings.warn('old', DeprecationWarning)")
        assert "DeprecationWarning: old" in same(tmp_path, "p.py").stderr


class TestMultiprocessing:
    PROGRAM = (
        "import multiprocessing, sys",
        "print('main' if __name__ == '__main__' else 'again', flush=True)",
        "class Thing: pass",
        "def work(thing):",
        "    assert type(thing) is Thing, type(thing)",
        "    print(__name__, flush=True)",
        "    return Thing()",
        "if __name__ == '__main__':",
        "    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:",
        "        assert type(pool.apply(work, (Thing(),))) is Thing",
    )

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_functions_and_classes_of_main(self, tmp_path: Path, method: str) -> None:
        """A spawned child imports the program, and not forksafe's command, as its main."""
        write(tmp_path / "p.py", *self.PROGRAM)
        write(tmp_path / "app" / "__main__.py", *self.PROGRAM)
        write(tmp_path / "tool", *self.PROGRAM)
        for words in (("p.py",), ("-m", "p"), ("tool",)):
            ours = same(tmp_path, *words, method)
            assert ours.returncode == 0, ours
            assert "main" in ours.stdout


class TestCommands:
    """PROGRAM by its bare name."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "bin").mkdir()
        return {"PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])}

    @staticmethod
    def script(tmp_path: Path, *first: str) -> Path:
        tool = write(tmp_path / "bin" / "forksafe-tool", *first, *SHOW)
        tool.chmod(0o755)
        return tool

    @pytest.mark.parametrize(
        "first",
        [
            "#!{python}",
            "#! {python} -s",
            "#!/usr/bin/env python3",
            "#!/usr/bin/env -S python3 -s",
            "#!/usr/bin/env -Spython",
            "#!/usr/bin/env python{version}",
            "#!python",
            "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''",
            "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''",
        ],
    )
    def test_a_script_of_this_interpreter(
        self, tmp_path: Path, path: dict[str, str], first: str
    ) -> None:
        version = "{}.{}".format(*sys.version_info)
        tool = self.script(tmp_path, first.format(python=sys.executable, version=version))
        ours = under_forksafe(tmp_path, "forksafe-tool", "--help", env=path)
        assert ours == under_python(tmp_path, str(tool), "--help")
        assert ours.returncode == 0

    def test_a_script_of_a_relocatable_environment(
        self, tmp_path: Path, path: dict[str, str]
    ) -> None:
        """The interpreter is the one beside the script."""
        beside = tmp_path / "bin" / "python3"
        beside.symlink_to(os.path.realpath(sys.executable))
        line = '\'\'\'exec\' "$(dirname -- "$(realpath -- "$0")")"/\'python3\' "$0" "$@"'
        self.script(tmp_path, "#!/bin/sh", line, "' '''")
        words = [os.path.realpath(sys.executable), "-m", "forksafe", "run", "forksafe-tool"]
        # That interpreter may belong to no environment, and have no forksafe.
        env = {**path, "PYTHONPATH": str(Path(forksafe.__file__).parents[1])}
        assert ended(words, tmp_path, env=env).stdout.startswith(f"['{tmp_path}/bin/")
        write(tmp_path / "pyvenv.cfg")  # and now that is an environment of its own
        assert ended(words, tmp_path, env=env).returncode == 2

    def test_a_zip_file_with_a_first_line(self, tmp_path: Path, path: dict[str, str]) -> None:
        tool = tmp_path / "bin" / "forksafe-tool"
        tool.write_bytes(f"#!{sys.executable}\n".encode())
        with zipfile.ZipFile(tool, "a") as file:
            file.writestr("__main__.py", "\n".join(SHOW))
        tool.chmod(0o755)
        ours = under_forksafe(tmp_path, "forksafe-tool", env=path)
        assert ours == under_python(tmp_path, str(tool))

    def test_one_beside_the_interpreter(self, tmp_path: Path) -> None:
        """In a virtual environment that is not activated, its own commands are found."""
        ours = under_forksafe(tmp_path, "pytest", "--version", env={"PATH": "/nowhere"})
        assert ours.returncode == 0, ours
        assert "pytest" in ours.stdout + ours.stderr

    def test_a_file_here_wins(self, tmp_path: Path, path: dict[str, str]) -> None:
        self.script(tmp_path, f"#!{sys.executable}")
        write(tmp_path / "forksafe-tool", "print('the file here')")
        assert under_forksafe(tmp_path, "forksafe-tool", env=path).stdout == "the file here\n"

    def test_a_directory_here_wins_only_if_it_is_a_program(
        self, tmp_path: Path, path: dict[str, str]
    ) -> None:
        self.script(tmp_path, f"#!{sys.executable}")
        (tmp_path / "forksafe-tool").mkdir()
        ours = under_forksafe(tmp_path, "forksafe-tool", env=path)
        assert ours.stdout.startswith(f"['{tmp_path}/bin/forksafe-tool']")
        write(tmp_path / "forksafe-tool" / "__main__.py", "print('the directory here')")
        ours = under_forksafe(tmp_path, "forksafe-tool", env=path)
        assert ours.stdout == "the directory here\n"

    @pytest.mark.parametrize(
        "first",
        [
            "#!/nowhere/bin/python3",
            "#!/usr/bin/env python2",
            "#!/usr/bin/env pypy2.7",
            "#!/bin/sh\n'''exec' /nowhere/bin/python3 \"$0\" \"$@\"\n' '''",
        ],
    )
    def test_another_interpreters(self, tmp_path: Path, path: dict[str, str], first: str) -> None:
        tool = self.script(tmp_path, first)
        line = refused(tmp_path, "forksafe-tool", env=path)
        assert f"{tool} belongs to another interpreter" in line
        assert sys.executable in line

    @pytest.mark.parametrize("first", ["#!/bin/sh", "#!/usr/bin/env bash", "#!", "echo hello"])
    def test_no_python_program(self, tmp_path: Path, path: dict[str, str], first: str) -> None:
        self.script(tmp_path, first)
        assert "is not a Python program" in refused(tmp_path, "forksafe-tool", env=path)


class TestWhatIsNoProgram:
    def test_nothing(self, tmp_path: Path) -> None:
        for words in ((), ("-m",), ("--",)):
            ours = under_forksafe(tmp_path, *words)
            assert ours.returncode == 2
            assert ours.stderr.startswith("usage: forksafe run ")

    def test_an_option_that_there_is_not(self, tmp_path: Path) -> None:
        ours = under_forksafe(tmp_path, "--nosuch", "p.py")
        assert ours.returncode == 2
        assert "--nosuch" in ours.stderr

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        for name in ("nosuch.py", "./nosuch.py", "/no/such.py", "nosuch"):
            assert name in refused(tmp_path, name)

    def test_a_module_that_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "pkg").mkdir()
        write(tmp_path / "pkg" / "__init__.py")
        for name in ("nosuch", "nosuch.mod", "pkg", "pkg.mod"):
            assert name in refused(tmp_path, "-m", name)

    def test_a_module_that_exits_is_one(self, tmp_path: Path) -> None:
        write(tmp_path / "p.py", "raise SystemExit('No module named p')")
        assert same(tmp_path, "-m", "p").returncode == 1

    def test_an_executable(self, tmp_path: Path) -> None:
        assert "is not a Python program" in refused(tmp_path, "ls")
        assert "is not a Python program" in refused(tmp_path, "/bin/ls")

    def test_a_shell_script(self, tmp_path: Path) -> None:
        write(tmp_path / "script", "#!/bin/sh", "if true; then ls; fi")
        assert "is not a Python program" in refused(tmp_path, "./script")

    def test_a_text(self, tmp_path: Path) -> None:
        write(tmp_path / "README", "Once upon a time.")
        assert "is not a Python program: invalid syntax" in refused(tmp_path, "README")

    def test_a_directory_or_zip_file_without_main(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with zipfile.ZipFile(tmp_path / "empty.zip", "w") as file:
            file.writestr("other.py", "")
        for name in ("empty", "./empty", "empty.zip"):
            assert "has no __main__.py" in refused(tmp_path, name)

    @pytest.mark.skipif(
        getattr(os, "geteuid", lambda: 0)() == 0, reason="the superuser reads everything"
    )
    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        write(tmp_path / "p.py").chmod(0)
        assert "Permission denied" in refused(tmp_path, "p.py")


def test_help_and_version() -> None:
    """``--help`` before PROGRAM is ours."""
    import forksafe

    command = [sys.executable, "-m", "forksafe"]
    here = Path.cwd()
    assert ended([*command, "--version"], here).stdout == f"forksafe {forksafe.__version__}\n"
    assert "usage: forksafe run [-h] [--audit" in ended([*command, "run", "--help"], here).stdout
    assert "demo" in ended([*command, "--help"], here).stdout
    nothing = ended(command, here)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "usage: forksafe" in nothing.stderr
