"""``forksafe audit`` and ``forksafe run --audit``, as a user types them."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import pty
import re
import shutil
import struct
import sys
import termios
from pathlib import Path

import pytest
from harness import READS_STACKS, Outcome, Started, command, environment

needs_stacks = pytest.mark.skipif(not READS_STACKS, reason="no stacks of other threads there")

APPS = Path(__file__).parents[1] / "command" / "apps"
FORKSAFE = (sys.executable, "-W", "ignore::DeprecationWarning", "-m", "forksafe")
LINUX = sys.platform == "linux"


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """A directory of its own with the applications, for it to be the current one."""
    return Path(shutil.copytree(APPS, tmp_path / "apps"))


def forksafe(
    apps: Path, *words: str, redirect: str = "", env: dict[str, str] | None = None
) -> Outcome:
    """Run the command; `redirect` is what a shell is to do with its streams."""
    return command(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *FORKSAFE, *words],
        cwd=apps,
        timeout=60,
        env=environment({"PYTHONUNBUFFERED": "", **(env or {})}),
    )


def flat(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def needs(module: str, install: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(absent, reason=f"no {module}: pip install {install}")


class TestTargets:
    """``forksafe audit MODULE[:ATTR[(ARGS)]]``."""

    def test_nothing_to_do(self, apps: Path) -> None:
        """Exit status 0: a module, and an attribute of it."""
        for target in ("clean", "clean:app"):
            done = forksafe(apps, "audit", target)
            assert done.returncode == 0, done
            assert done.stdout.startswith(f"{target}: nothing needs action")
            assert done.stderr == ""

    @needs("flask", "flask")
    def test_a_clean_flask_application(self, apps: Path) -> None:
        done = forksafe(apps, "audit", "flask_app:app")
        assert done.returncode == 0, done

    def test_action_needed(self, apps: Path) -> None:
        """Exit status 1, at once, although the thread never ends; grouped, without colour."""
        done = forksafe(apps, "audit", "dirty:create()")
        assert done.returncode == 1, done
        assert "Needs action\n  thread:MyMetrics-1\n    what   non-daemon thread" in done.stdout
        assert "    where  threading:Event.wait\n" in done.stdout
        assert ("    why    It stands at" in done.stdout) == READS_STACKS
        assert "    do     start it after the fork" in done.stdout
        assert "\033" not in done.stdout
        assert done.stdout.index("Needs action") < done.stdout.index("Advice")
        assert forksafe(apps, "audit", "dirty").returncode == 0  # it is calling it that starts it
        assert forksafe(apps, "audit", "daemon").returncode == 1

    @pytest.mark.parametrize(
        "call", ["create('mine', daemon=True)", "create(name='mine')", "Factory.create('mine')"]
    )
    def test_a_call_with_arguments(self, apps: Path, call: str) -> None:
        """As Gunicorn takes it: literals, nothing else."""
        done = forksafe(apps, "audit", f"dirty:{call}")
        assert done.returncode == 1, done
        assert "  thread:mine\n" in done.stdout

    @pytest.mark.parametrize(
        ("target", "error"),
        [
            ("broken", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
            ("no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("clean:no_such", "AttributeError: module 'clean' has no attribute 'no_such'"),
            ("clean:", "SyntaxError: "),
            ("dirty:create(print)", "ValueError: malformed node or string"),
            ("dirty:create(1, 2)", "TypeError: create() takes from 0 to 1 positional arguments"),
        ],
    )
    def test_one_that_does_not_load(self, apps: Path, target: str, error: str) -> None:
        """Exit status 2, with the traceback: that of the target, without forksafe's own lines."""
        done = forksafe(apps, "audit", target)
        assert done.returncode == 2, done
        assert error in done.stderr
        assert done.stderr.endswith(f"\nforksafe audit: {target} failed before any fork\n")
        assert ("broken.py" in done.stderr) is (target == "broken")
        assert "_audit.py" not in done.stderr and "importlib" not in done.stderr

    @pytest.mark.parametrize(
        ("word", "said"),
        [
            ("package", "imported package\n"),
            ("runnable", "imported runnable\n"),
            ("runnable/", "ran __main__\n"),
            ("directory", "ran __main__\n"),
        ],
    )
    def test_a_directory_here(self, apps: Path, word: str, said: str) -> None:
        """A package is imported, as a server does it; one that is just a program is run."""
        done = forksafe(apps, "audit", word)
        assert done.returncode == 0, done
        assert done.stdout.startswith(f"{said}{word}: ")
        assert ("did not fork" in done.stderr) is said.startswith("ran")

    def test_options_behind_the_module(self, apps: Path) -> None:
        """They are not taken for the module's, and it is said where they go."""
        done = forksafe(apps, "audit", "clean", "--json")
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr.endswith("; options go before a module\n")


class TestPrograms:
    """``forksafe audit PROGRAM``: until it forks a worker."""

    @pytest.mark.parametrize(
        "words",
        [
            ("forks.py", "a", "--b"),
            ("-m", "forks", "a", "--b"),
            ("python", "forks.py", "a", "--b"),
            ("-c", "import forks", "a", "--b"),
        ],
    )
    def test_until_it_would_fork(self, apps: Path, words: tuple[str, ...]) -> None:
        """It has its arguments, and does not get to fork."""
        done = forksafe(apps, "audit", *words)
        assert done.returncode == 1, done
        assert "args ['a', '--b']" in done.stdout
        assert "  thread:MyMetrics-1\n" in done.stdout
        assert "forked" not in done.stdout

    def test_which_fork(self, apps: Path) -> None:
        """It is printed, with the line; a long path is not broken."""
        done = forksafe(apps, "audit", "forks.py")
        (line,) = (n for n, text in enumerate((APPS / "forks.py").open(), 1) if "os.fork" in text)
        assert f" fork __main__.<module>, {apps}/forks.py:{line} " in flat(done.stdout)
        answer = json.loads(forksafe(apps, "audit", "--json", "forks.py").stdout)
        assert answer["fork"] == f"__main__.<module>, {apps}/forks.py:{line}"

    def test_those_that_need_nothing(self, apps: Path) -> None:
        done = forksafe(apps, "audit", "./forks_clean.py")
        assert done.returncode == 0, done
        assert "forked" not in done.stdout
        done = forksafe(apps, "audit", "runs.py")
        assert done.returncode == 0, done
        assert "did not fork" in done.stderr

    def test_those_that_fail_before_they_fork(self, apps: Path) -> None:
        """The traceback, once, or what it gave to sys.exit(), is shown."""
        done = forksafe(apps, "audit", "fails.py")
        assert done.returncode == 2, done
        assert done.stderr.count("ValueError: no") == 1
        assert "_run.py" not in done.stderr
        done = forksafe(apps, "audit", "gives_up.py")
        assert done.returncode == 2, done
        assert done.stderr.startswith("forksafe audit: gives_up.py failed before any fork: ")
        assert "no configuration" in done.stderr

    def test_forks_that_make_no_worker(self, apps: Path) -> None:
        """Those of a Manager, of a Process and of a child that execs go on, and are told."""
        mark = f"FORKSAFE_MARK_{apps.parent.name}"
        done = forksafe(apps, "audit", "preforks.py", env={mark: "1"})
        assert done.returncode == 1, done
        assert " fork __main__.spawn, " in flat(done.stdout)
        assert "forked" not in done.stdout
        line = r"no worker's fork: (\w+) in __main__.<module>, \S+/preforks.py:\d+\n"
        told = re.findall(line, done.stderr)
        assert told == ["Manager", "Process"]
        if LINUX:
            assert environments_with(mark) == []

    def test_workers_that_are_processes(self, apps: Path) -> None:
        """Not to be green without a look: 2, or a look where it was asked for."""
        done = forksafe(apps, "audit", "processes.py")
        assert done.returncode == 2, done
        assert "worked" in done.stdout
        assert done.stderr.endswith("if these are its workers, say --processes\n")
        done = forksafe(apps, "audit", "--processes", "processes.py")
        assert done.returncode == 1, done
        assert "worked" not in done.stdout
        assert " fork __main__.<module>, " in flat(done.stdout)
        assert "  thread:MyMetrics-1\n" in done.stdout

    @needs("gunicorn", "gunicorn")
    @pytest.mark.parametrize("words", [("gunicorn",), ("-m", "gunicorn")])
    @pytest.mark.parametrize("more", [(), ("-c", "gunicorn.conf.py")])
    def test_gunicorn(self, apps: Path, words: tuple[str, ...], more: tuple[str, ...]) -> None:
        """The fork of a worker, whatever the application has started; nothing is left behind."""
        mark = f"FORKSAFE_MARK_{apps.parent.name}"
        options = ("--preload", "-b", "127.0.0.1:0", *more, "web:app")
        done = forksafe(apps, "audit", *words, *options, env={mark: "1"})
        assert done.returncode == 1, done
        line = r" fork gunicorn.arbiter.spawn_worker, /\S+/gunicorn/arbiter.py:\d+ "
        assert re.search(line, flat(done.stdout))
        assert "  thread:MyMetrics-1\n" in done.stdout
        assert "Booting worker" not in done.stderr
        if LINUX:
            assert environments_with(mark) == []

    @needs("celery", "celery")
    def test_celery(self, apps: Path) -> None:
        """Its workers are Processes of billiard."""
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        done = forksafe(apps, "audit", "celery", "-A", "tasks", "worker", "-c", "1", *quiet)
        assert " fork celery.concurrency.prefork." in flat(done.stdout)
        assert " ready." not in done.stderr


@pytest.mark.parametrize("target", ["ends", "ends.py"])
def test_one_that_ends_the_process(apps: Path, target: str) -> None:
    """Exit status 2, and a word: not a silent 0 of the program's own."""
    done = forksafe(apps, "audit", target)
    assert done.returncode == 2, done
    assert done.stderr == f"forksafe audit: {target} ended the process: os._exit(0)\n"


def test_one_that_exits_when_it_is_imported(apps: Path) -> None:
    done = forksafe(apps, "audit", "exits")
    assert done.returncode == 2, done
    assert done.stderr == "forksafe audit: exits failed before any fork: SystemExit(0)\n"


def environments_with(mark: str) -> list[str]:
    """Return the command lines of processes that have `mark` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
        except OSError:  # it has ended meanwhile, or is another user's
            pass
    return found


class TestWhatIsAccepted:
    def test_allow(self, apps: Path) -> None:
        """The pattern is the next word, or behind a ``=``."""
        mine = "thread:MyMetrics*"
        for words in ((f"--allow={mine}",), ("--allow", mine, "--allow=lock")):
            done = forksafe(apps, "audit", *words, "daemon")
            assert done.returncode == 0, done
            assert "MyMetrics" not in done.stdout

    @pytest.mark.parametrize("target", ["daemon", "brackets"])
    def test_what_the_report_shows_is_a_pattern(self, apps: Path, target: str) -> None:
        """Each is taken by --allow as it stands there."""
        done = forksafe(apps, "audit", target)
        patterns = re.findall(r"^  (\S.*)$", done.stdout, re.MULTILINE)
        assert len(patterns) >= 1
        done = forksafe(apps, "audit", *(f"--allow={pattern}" for pattern in patterns), target)
        assert done.stdout == f"loading\n{target}: nothing needs action\n"

    def test_pyproject(self, apps: Path) -> None:
        """The table of the current directory is added to --allow, also of ``run --audit``."""
        pyproject = apps / "pyproject.toml"
        pyproject.write_text('[tool.forksafe]\nallow = ["thread:MyMetrics*"]\n')
        done = forksafe(apps, "audit", "--allow=lock", "daemon")
        readable = sys.version_info >= (3, 11) or importlib.util.find_spec("tomli") is not None
        assert done.returncode == (0 if readable else 1), done
        assert ("pyproject.toml is not read: tomli is not installed" in done.stderr) is not readable
        assert done.stderr.count("\n") == (0 if readable else 1)
        done = forksafe(apps, "run", "--audit=warn", "forks.py")
        assert ("ForkHazardWarning" in done.stderr) is not readable

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('[tool.forksafe]\nallow = ["threads:x"]', "no kind 'threads'"),
            ("[tool.forksafe]\nallow = [1]", "must be a str"),
            ("[tool.forksafe]\nallow = 1", "must be an iterable"),
            ("[tool.forksafe\n", "(at line 1"),
            ('tool.forksafe = "x"', "no attribute 'get'"),
        ],
    )
    def test_a_wrong_pyproject(self, apps: Path, text: str, why: str) -> None:
        (apps / "pyproject.toml").write_text(text)
        done = forksafe(apps, "audit", "clean")
        assert done.returncode == 2, done
        assert done.stderr.startswith("forksafe audit: --allow, or pyproject.toml: ")
        assert why in done.stderr
        assert done.stderr.count("\n") == 1

    def test_a_pyproject_of_others(self, apps: Path) -> None:
        """It is not even parsed."""
        (apps / "pyproject.toml").write_text('name = "x\n')
        assert forksafe(apps, "audit", "clean").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--allow=threads:x", "clean"),
        ("--no-such-option", "clean"),
        ("no_such_file.py.txt/x",),
        ("no_such_file.py",),
        ("-m", "no_such_module"),
        ("--allow", "thread"),
    ],
)
def test_wrong_usage(apps: Path, words: tuple[str, ...]) -> None:
    done = forksafe(apps, "audit", *words)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "forksafe audit: " in done.stderr.splitlines()[-1] or "--no-such-option" in words
    assert "Traceback" not in done.stderr


class TestReport:
    def test_json(self, apps: Path) -> None:
        """Alone on stdout; what the target prints is on stderr."""
        done = forksafe(apps, "audit", "--json", "dirty:create()")
        assert done.returncode == 1
        answer = json.loads(done.stdout)
        assert answer["target"] == "dirty:create()"
        assert answer["fork"] == ""
        (thread,) = (h for h in answer["hazards"] if h["kind"] == "thread")
        assert thread["severity"] == "action"
        keys = {*("kind", "severity", "summary", "subject", "detail", "remedy", "where"), "library"}
        assert set(thread) == keys
        assert "loading" in done.stderr
        done = forksafe(apps, "audit", "--json", "prints")
        assert json.loads(done.stdout)["target"] == "prints"
        assert done.stderr == "loading\npast it\n"

    needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")

    @pytest.mark.parametrize("redirect", [">&-", pytest.param(">/dev/full", marks=needs_full)])
    @pytest.mark.parametrize("options", [(), ("--json",)])
    @pytest.mark.parametrize("target", ["clean", "none", "dirty:create()", "./forks.py"])
    def test_one_that_cannot_be_written(
        self, apps: Path, target: str, options: tuple[str, ...], redirect: str
    ) -> None:
        """Exit status 2, also where a thread never ends, and it is said why."""
        done = forksafe(apps, "audit", *options, target, redirect=redirect)
        assert done.returncode == 2, done
        assert done.stdout == ""
        if "full" in redirect:
            last = done.stderr.splitlines()[-1]
            assert last.startswith("forksafe audit: the report cannot be written: ")
        else:
            assert "OSError: [Errno 9] Bad file descriptor\n" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_not_into_a_file_of_the_target(self, apps: Path, options: tuple[str, ...]) -> None:
        """Where stdout is closed, the first file that is opened would get its number."""
        done = forksafe(apps, "audit", *options, "opens", redirect=">&-")
        assert done.returncode == 2, done
        assert not (apps / "log.txt").exists()

    @pytest.mark.parametrize("options", [(), ("--json",)])
    @pytest.mark.parametrize(
        ("target", "status"), [("none", 0), ("closes", 0), ("closes_dirty", 1)]
    )
    def test_a_target_without_stdout(
        self, apps: Path, target: str, status: int, options: tuple[str, ...]
    ) -> None:
        """The report goes to the descriptor, which is still there."""
        done = forksafe(apps, "audit", *options, target)
        assert done.returncode == status, done
        if options:
            assert json.loads(done.stdout)["target"] == target
        else:
            assert f"{target}: " in done.stdout

    @needs_stacks  # for a text that is long enough
    @pytest.mark.parametrize("columns", [80, 120])
    def test_it_fits_the_terminal(self, apps: Path, columns: int) -> None:
        """No line is longer, unless it is one word: a path, which stays in one piece."""
        text = on_a_terminal(apps, "dirty:create()", columns=columns)
        lines = text.splitlines()
        longest = max(len(line) for line in lines if " " in line.strip()[7:].strip())
        assert columns - 25 < longest <= columns

    @needs_stacks
    def test_a_path_stays_in_one_piece(self, apps: Path) -> None:
        """Though it is longer than a line."""
        text = on_a_terminal(apps, "dirty:create()", columns=30)
        (path,) = re.findall(r"\S+/threading.py:\d+\b", text)
        assert len(path) > 30
        assert os.path.exists(path.rpartition(":")[0])

    def test_colour(self, apps: Path) -> None:
        """By severity, on a terminal only; and not where NO_COLOR is set."""
        red, blue, end = "\033[31m", "\033[36m", "\033[0m"
        text = on_a_terminal(apps, "dirty:create()")
        assert f"\n{red}Needs action{end}\n  {red}thread:MyMetrics-1{end}\n" in text
        assert f"\n{blue}Advice{end}\n  {blue}memory{end}\n" in text
        assert "\033" not in on_a_terminal(apps, "dirty:create()", NO_COLOR="1")


def on_a_terminal(apps: Path, target: str, columns: int = 80, **env: str) -> str:
    """Return what the command prints on a terminal that is so wide."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {name: os.environ[name] for name in os.environ if name not in ("COLUMNS", "NO_COLOR")}
    started = Started()
    try:
        process = started.start(
            [*FORKSAFE, "audit", target], {**environ, **env}, cwd=apps, stdout=child
        )
        os.close(child)
        text = b""
        try:
            while part := os.read(parent, 65536):
                text += part
        except OSError:  # EIO: the other end is closed
            pass
        os.close(parent)
        assert process.wait() == 1
    finally:
        started.end()
    return text.decode().replace("\r\n", "\n")


class TestRun:
    """``forksafe run --audit``."""

    def test_with_warnings(self, apps: Path) -> None:
        done = forksafe(apps, "run", "--audit=warn", "forks.py")
        assert done.returncode == 0, done
        assert done.stdout.endswith("forked\n")
        assert "forks.py:" in done.stderr and "ForkHazardWarning" in done.stderr
        done = forksafe(apps, "run", "--audit=warn", "--allow=thread:My*", "forks.py")
        assert "ForkHazardWarning" not in done.stderr

    def test_and_refuse(self, apps: Path) -> None:
        """os.fork() raises, where there is a hazard, and only there."""
        done = forksafe(apps, "run", "--audit=raise", "forks.py")
        assert done.returncode == 1, done
        assert "UnsafeForkError" in done.stderr and "MyMetrics-1" in done.stderr
        assert "forked" not in done.stdout
        for words in (("forks_clean.py",), ("--allow=thread:My*", "forks.py")):
            done = forksafe(apps, "run", "--audit=raise", *words)
            assert done.returncode == 0, done
            assert done.stdout.count("forked") == 1

    def test_with_patterns_and_no_audit(self, apps: Path) -> None:
        """They would be of no effect; the program is not run."""
        done = forksafe(apps, "run", "--allow=thread", "runs.py")
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr == "forksafe run: --allow is of use with --audit only\n"

    def test_with_a_wrong_pattern(self, apps: Path) -> None:
        done = forksafe(apps, "run", "--audit=warn", "--allow=threads:x", "runs.py")
        assert done.returncode == 2, done
        assert "no kind 'threads'" in done.stderr


class TestDropConnections:
    def test_run(self, apps: Path) -> None:
        """The child has the connection, and with the option not."""
        for words, said in (((), "kept\n"), (("--drop-connections",), "dropped\n")):
            done = forksafe(apps, "run", *words, "connected.py")
            assert (done.returncode, done.stdout) == (0, said), done

    @pytest.mark.parametrize("target", ["connected", "connected.py"])
    def test_audit(self, apps: Path, target: str) -> None:
        """It tells what would be fixed with it."""
        assert forksafe(apps, "audit", target).returncode == 1
        done = forksafe(apps, "audit", "--drop-connections", target)
        assert done.returncode == 0, done
        assert "Fixed by forksafe" in done.stdout
