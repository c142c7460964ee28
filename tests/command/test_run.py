"""``forksafe run PROGRAM`` is ``python PROGRAM``, but for the hook: both are run, and compared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from harness import PYPY, Outcome, Started, command

import forksafe

PROGRAMS = Path(__file__).parent / "programs"
VERSION = "{}.{}".format(*sys.version_info)
FORKSAFE = (sys.executable, "-m", "forksafe")
# As the scripts of an environment that may be moved have it.
BESIDE_THE_SCRIPT = """'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python3' "$0" "$@\""""
TIMEOUT = 60
not_normal = pytest.mark.skipif(PYPY, reason="PyPy makes a path normal where CPython joins it")


def ended(
    words: tuple[str, ...], cwd: Path, stdin: str = "", env: dict[str, str] | None = None
) -> Outcome:
    return command(words, cwd=cwd, stdin=stdin, timeout=TIMEOUT, env={**os.environ, **(env or {})})


def under_python(cwd: Path, *words: str, stdin: str = "") -> Outcome:
    return ended((sys.executable, *words), cwd, stdin)


def under_forksafe(
    cwd: Path, *words: str, stdin: str = "", env: dict[str, str] | None = None
) -> Outcome:
    return ended((*FORKSAFE, "run", *words), cwd, stdin, env)


def same(cwd: Path, *words: str, stdin: str = "") -> Outcome:
    """Assert that both end alike, to the last byte; return how."""
    ours = under_forksafe(cwd, *words, stdin=stdin)
    assert ours == under_python(cwd, *words, stdin=stdin)
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


def program(name: str, path: Path) -> Path:
    """Put a program of this directory there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROGRAMS / f"{name}.py", path)
    return path


@pytest.fixture
def show(tmp_path: Path) -> Path:
    """A directory with ``show.py``, which prints all that tells how a program was started."""
    program("show", tmp_path / "show.py")
    return tmp_path


class TestHowItIsStarted:
    def test_by_file(self, show: Path) -> None:
        assert "show.py" in same(show, "show.py", "a", "-b").stdout

    @not_normal
    @pytest.mark.parametrize("spelling", ["./show.py", "sub/../show.py", "{}/show.py"])
    def test_by_other_spellings_of_the_path(self, show: Path, spelling: str) -> None:
        (show / "sub").mkdir()
        assert same(show, spelling.format(show)).returncode == 0

    def test_from_another_directory(self, show: Path) -> None:
        """sys.path[0] is the program's directory, not the current one."""
        (show / "sub").mkdir()
        ours = under_forksafe(show / "sub", "../show.py")
        assert ours.stdout.startswith(f"['../show.py'] ['{show}', ")

    def test_by_symbolic_link(self, show: Path) -> None:
        """sys.path[0] is where the link leads to."""
        (show / "bin").mkdir()
        (show / "bin" / "link").symlink_to("../show.py")
        assert f"'{show}'" in same(show / "bin", "link").stdout

    def test_by_module(self, show: Path) -> None:
        assert same(show, "-m", "show", "-m", "--help").returncode == 0

    def test_by_package_and_by_module_in_a_package(self, show: Path) -> None:
        write(show / "pkg" / "__init__.py", "import sys", "print('init', sys.argv)")
        program("show", show / "pkg" / "__main__.py")
        program("show", show / "pkg" / "mod.py")
        assert same(show, "-m", "pkg", "x").returncode == 0
        assert same(show, "-m", "pkg.mod", "x").returncode == 0

    def test_by_module_with_the_option_joined(self, show: Path) -> None:
        assert same(show, "-mshow", "x").returncode == 0

    @pytest.mark.parametrize(
        "spelling",
        ["app", pytest.param("./app", marks=not_normal), pytest.param("app/", marks=not_normal)],
    )
    def test_by_directory(self, tmp_path: Path, spelling: str) -> None:
        program("show", tmp_path / "app" / "__main__.py")
        assert same(tmp_path, spelling, "x").returncode == 0

    def test_by_zip_file(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "app.pyz", "w") as file:
            file.writestr("__main__.py", "import inside\n" + (PROGRAMS / "show.py").read_text())
            file.writestr("inside.py", "")
        assert same(tmp_path, "app.pyz", "x").returncode == 0

    def test_by_code(self, show: Path) -> None:
        """``-c CODE``, also as one word; the current directory is in the path."""
        code = (show / "show.py").read_text()
        assert "['-c', 'a', '-m'] ['', " in same(show, "-c", code, "a", "-m").stdout
        assert same(show, f"-c{code}").returncode == 0
        # Since Python 3.14 it may be indented; before that is an error, as under python.
        indented = under_forksafe(show, "-c", "    print('indented')")
        assert indented.returncode == under_python(show, "-c", "    print('indented')").returncode

    def test_by_standard_input(self, show: Path) -> None:
        code = (show / "show.py").read_text()
        assert "['-', 'a'] ['', " in same(show, "-", "a", stdin=code).stdout
        assert same(show, "-", stdin="1/0").returncode == 1
        assert same(show, "-", stdin="x = )").returncode == 1

    def test_from_a_pipe(self, show: Path) -> None:
        """As ``python <(...)`` does: what is no regular file is still read."""
        read, write_end = os.pipe()
        os.write(write_end, b"print('from a pipe')")
        os.close(write_end)
        process = subprocess.run(
            [*FORKSAFE, "run", f"/dev/fd/{read}"],
            cwd=show,
            pass_fds=[read],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        os.close(read)
        assert (process.returncode, process.stdout) == (0, "from a pipe\n"), process.stderr

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is new in Python 3.11")
    def test_with_safe_path(self, show: Path) -> None:
        program("show", show / "app" / "__main__.py")
        for name in ("show.py", "app"):
            ours = ended((sys.executable, "-P", "-m", "forksafe", "run", name), show)
            assert ours == under_python(show, "-P", name)
            assert (f"'{show}'" in ours.stdout.splitlines()[0]) is False

    def test_all_that_follows_belongs_to_the_program(self, show: Path) -> None:
        words = ("-m", "x", "--", "--help", "--version", "--", "")
        assert str(["show.py", *words]) in same(show, "show.py", *words).stdout

    def test_a_program_whose_name_begins_with_a_dash(self, show: Path) -> None:
        (show / "show.py").rename(show / "-show.py")
        ours = under_forksafe(show, "--", "-show.py", "--help")
        assert ours.stdout.startswith("['-show.py', '--help']")

    def test_the_hook_is_installed(self, tmp_path: Path) -> None:
        code = "import forksafe; print(forksafe.installed())"
        assert under_forksafe(tmp_path, "-c", code) == Outcome(0, "True\n", "")
        assert under_python(tmp_path, "-c", code) == Outcome(0, "False\n", "")


class TestPythonInFront:
    """``forksafe run python PROGRAM``: what one has typed before, with two words in front."""

    @pytest.mark.parametrize(
        "words",
        [
            ("show.py", "a", "-b"),
            ("-m", "show", "--help"),
            ("-mshow",),
            ("-c", "import sys; print(sys.argv, sys.path)", "a"),
            ("-", "a"),
            (),
        ],
    )
    def test_any_program(self, show: Path, words: tuple[str, ...]) -> None:
        stdin = "import sys; print(sys.argv, sys.path)"
        plain = under_python(show, *words, stdin=stdin)
        assert plain.returncode == 0
        assert under_forksafe(show, "python", *words, stdin=stdin) == plain

    @pytest.mark.parametrize("python", ["python3", "python" + VERSION, sys.executable])
    def test_any_name_of_this_interpreter(self, show: Path, python: str) -> None:
        assert under_forksafe(show, python, "show.py") == under_python(show, "show.py")

    @pytest.mark.parametrize("python", ["python2", "python3.1", "/nowhere/python3"])
    def test_another_interpreter(self, show: Path, python: str) -> None:
        line = refused(show, python, "show.py")
        assert f"{python} is another interpreter than this one, {sys.executable}" in line

    def test_options_of_the_interpreter(self, show: Path) -> None:
        """They are too late here; it is said where they go."""
        line = refused(show, "python", "-u", "show.py")
        assert line.endswith("python -u: write python -u -m forksafe run ...")
        assert ended((sys.executable, "-u", *FORKSAFE[1:], "run", "show.py"), show).returncode == 0
        assert "python -m" in refused(show, "python", "-m")


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
        program("interrupted", tmp_path / "p.py")
        outcomes = []
        pipes = {**dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE), "text": True}
        for words in ([sys.executable], [*FORKSAFE, "run"]):
            started = Started()
            process = started.start([*words, "p.py"], dict(os.environ), cwd=tmp_path, **pipes)
            try:
                assert process.stdout.readline() == ".\n"
                process.send_signal(signal.SIGINT)
                outcomes.append((*process.communicate("\n", timeout=TIMEOUT), process.returncode))
            finally:
                started.end()
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
        """It gets the program's frames only, once, and finds itself in its place."""
        program("with_excepthook", tmp_path / "p.py")
        assert same(tmp_path, "p.py").stdout.count("True True") == 1

    def test_exit_handlers_and_threads_find_their_globals(self, tmp_path: Path) -> None:
        """The program's namespace lives as long as the process."""
        program("to_the_end", tmp_path / "p.py")
        assert same(tmp_path, "p.py").stdout == "thread globals\nexit globals __main__\n"

    def test_stdin_is_the_programs(self, tmp_path: Path) -> None:
        write(tmp_path / "p.py", "import sys", "print(input(), sys.stdin.read())")
        assert same(tmp_path, "p.py", stdin="a\nb\nc").stdout == "a b\nc\n"

    def test_warnings_of_main_are_shown(self, tmp_path: Path) -> None:
        """DeprecationWarning is shown where ``__main__`` is to blame."""
        write(tmp_path / "p.py", "import warnings", "warnings.warn('old', DeprecationWarning)")
        assert "DeprecationWarning: old" in same(tmp_path, "p.py").stderr

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_functions_and_classes_of_main(self, tmp_path: Path, method: str) -> None:
        """A spawned child imports the program, and not forksafe's command, as its main."""
        program("pool", tmp_path / "p.py")
        program("pool", tmp_path / "tool")
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
        tool = write(tmp_path / "bin" / "forksafe-tool", *first, (PROGRAMS / "show.py").read_text())
        tool.chmod(0o755)
        return tool

    @pytest.mark.parametrize(
        "first",
        [
            "#!{python}",
            "#! {python} -s",
            "#!/usr/bin/env python3",
            "#!/usr/bin/env -S python3 -s",
            "#!/usr/bin/env python{version}",
            "#!python",
            "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''",
            "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''",
            f"#!/bin/sh\n{BESIDE_THE_SCRIPT}\n' '''",
        ],
    )
    def test_a_script_of_this_interpreter(
        self, tmp_path: Path, path: dict[str, str], first: str
    ) -> None:
        tool = self.script(tmp_path, first.format(python=sys.executable, version=VERSION))
        ours = under_forksafe(tmp_path, "forksafe-tool", "--help", env=path)
        assert ours == under_python(tmp_path, str(tool), "--help")
        assert ours.returncode == 0

    def test_a_zip_file_with_a_first_line(self, tmp_path: Path, path: dict[str, str]) -> None:
        tool = tmp_path / "bin" / "forksafe-tool"
        tool.write_bytes(f"#!{sys.executable}\n".encode())
        with zipfile.ZipFile(tool, "a") as file:
            file.writestr("__main__.py", (PROGRAMS / "show.py").read_text())
        tool.chmod(0o755)
        ours = under_forksafe(tmp_path, "forksafe-tool", env=path)
        assert ours == under_python(tmp_path, str(tool))

    def test_one_beside_the_interpreter(self, tmp_path: Path, path: dict[str, str]) -> None:
        """In a virtual environment that is not activated its own commands are found, and first."""
        write(tmp_path / "bin" / "pytest", "#!/bin/sh").chmod(0o755)
        ours = under_forksafe(tmp_path, "pytest", "--version", env=path)
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
        ("first", "interpreter"),
        [
            ("#!/nowhere/bin/python3", "/nowhere/bin/python3"),
            ("#!/usr/bin/env python2", "python2"),
            ("#!/usr/bin/env pypy2.7", "pypy2.7"),
            (
                "#!/bin/sh\n'''exec' /nowhere/bin/python3 \"$0\" \"$@\"\n' '''",
                "/nowhere/bin/python3",
            ),
        ],
    )
    def test_another_interpreters(
        self, tmp_path: Path, path: dict[str, str], first: str, interpreter: str
    ) -> None:
        tool = self.script(tmp_path, first)
        line = refused(tmp_path, "forksafe-tool", env=path)
        assert f"{tool} belongs to another interpreter, {interpreter}: " in line

    @pytest.mark.parametrize(
        ("first", "what"),
        [
            ("#!/bin/sh", "is a shell script"),
            ("#!/usr/bin/env bash", "is a shell script"),
            ("#!/usr/bin/env node\n{", "is not a Python program: node runs it"),
            ("echo hello", "is not a Python program: "),
        ],
    )
    def test_no_python_program(
        self, tmp_path: Path, path: dict[str, str], first: str, what: str
    ) -> None:
        tool = self.script(tmp_path, first)
        assert f"{tool} {what}" in refused(tmp_path, "forksafe-tool", env=path)


class TestWhatIsNoProgram:
    def test_nothing(self, tmp_path: Path) -> None:
        for words in ((), ("-m",), ("-c",), ("--",)):
            assert "which program?" in refused(tmp_path, *words)

    def test_an_option_that_there_is_not(self, tmp_path: Path) -> None:
        ours = under_forksafe(tmp_path, "--nosuch", "p.py")
        assert ours.returncode == 2
        assert "--nosuch" in ours.stderr

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        for name in ("nosuch.py", "./nosuch.py", "/no/such.py", "nosuch"):
            assert name in refused(tmp_path, name)

    def test_a_module_that_is_not_there(self, tmp_path: Path) -> None:
        """As under python."""
        write(tmp_path / "pkg" / "__init__.py")
        for name in ("nosuch", "nosuch.mod", "pkg", "pkg.mod"):
            assert same(tmp_path, "-m", name).returncode == 1

    def test_a_directory_or_zip_file_without_main(self, tmp_path: Path) -> None:
        """As under python."""
        (tmp_path / "empty").mkdir()
        with zipfile.ZipFile(tmp_path / "empty.zip", "w") as file:
            file.writestr("other.py", "")
        for name in ("empty", "empty.zip"):
            assert "can't find '__main__' module" in same(tmp_path, name).stderr

    def test_an_executable(self, tmp_path: Path) -> None:
        path = shutil.which("ls")
        assert path
        for name in ("ls", path):
            assert f"{path} is not a Python program: it is a binary" in refused(tmp_path, name)

    def test_a_shell_script(self, tmp_path: Path) -> None:
        write(tmp_path / "start.sh", "#!/bin/sh", "exec gunicorn app:app")
        assert "start.sh is a shell script, no Python" in refused(tmp_path, "./start.sh")

    def test_a_text(self, tmp_path: Path) -> None:
        write(tmp_path / "README", "Once upon a time.")
        assert "is not a Python program: invalid syntax" in refused(tmp_path, "README")

    @pytest.mark.skipif(
        getattr(os, "geteuid", lambda: 0)() == 0, reason="the superuser reads everything"
    )
    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        write(tmp_path / "p.py").chmod(0)
        assert "Permission denied" in refused(tmp_path, "p.py")


def test_help_and_version() -> None:
    """``--help`` before PROGRAM is ours."""
    here = Path.cwd()
    assert ended((*FORKSAFE, "--version"), here).stdout == f"forksafe {forksafe.__version__}\n"
    assert "usage: forksafe run [OPTIONS]" in ended((*FORKSAFE, "run", "--help"), here).stdout
    assert "demo" in ended((*FORKSAFE, "--help"), here).stdout
    nothing = ended(FORKSAFE, here)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "usage: forksafe" in nothing.stderr
