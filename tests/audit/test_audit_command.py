"""``forksafe audit`` and ``forksafe run --audit``, as a user types them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import needs

THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, name='MyMetrics-1'"
SOURCES = {
    "clean.py": "app = object()\n",
    "dirty.py": f"print('loading')\ndef create():\n    {THREAD.splitlines()[0]}\n"
    f"    {THREAD.splitlines()[1]}).start()\n    return object()\n",
    "daemon.py": f"{THREAD}, daemon=True).start()\n",
    "broken.py": "import no_such_module_anywhere\n",
    "exits.py": "raise SystemExit(0)\n",
    "forks.py": f"import os, sys\n{THREAD}, daemon=True).start()\nprint('args', sys.argv[1:])\n"
    "pid = os.fork()\nif pid == 0:\n    os._exit(0)\nos.waitpid(pid, 0)\nprint('forked')\n",
    "forks_clean.py": "import os\nif os.fork() == 0:\n    os._exit(0)\nprint('forked')\n",
    "runs.py": "print('ran')\n",
    "fails.py": "raise ValueError('no')\n",
    "gives_up.py": "import sys\nsys.exit('no configuration')\n",
    "flask_app.py": "import flask\napp = flask.Flask('clean')\n",
    "package/__init__.py": "print('imported', __name__)\n",
    "runnable/__init__.py": "print('imported', __name__)\n",
    "runnable/__main__.py": "print('ran', __name__)\n",
    "directory/__main__.py": "print('ran', __name__)\n",
    "none.py": "import sys\nsys.stdout = None\n",
    "closes.py": "import sys\nsys.stdout.close()\n",
    "prints.py": "print('loading')\n",
    "closes_dirty.py": f"import sys\nsys.stdout.close()\n{THREAD}).start()\n",
    "opens.py": "file = open('log.txt', 'w')\nprint(file.fileno(), file=file, flush=True)\n",
    "forever.py": f"{THREAD}).start()\n",
}


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


def forksafe(apps: Path, *words: str, redirect: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command; `redirect` is what a shell is to do with its streams."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "forksafe", *words]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *command],
        cwd=apps,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )


def test_nothing_to_do(apps: Path) -> None:
    """Exit status 0: a module, and an attribute of it."""
    for target in ("clean", "clean:app"):
        done = forksafe(apps, "audit", target)
        assert done.returncode == 0, done
        assert "nothing needs action" in done.stdout
        assert done.stderr == ""


@needs("flask", "flask")
def test_a_clean_flask_application(apps: Path) -> None:
    done = forksafe(apps, "audit", "flask_app:app")
    assert done.returncode == 0, done


def test_action_needed(apps: Path) -> None:
    """Exit status 1, at once, although the thread never ends; grouped, without colour."""
    done = forksafe(apps, "audit", "dirty:create()")
    assert done.returncode == 1, done
    assert "Needs action\n  thread: non-daemon thread 'MyMetrics-1'" in done.stdout
    assert "where  threading:Event.wait" in done.stdout
    assert "why    It stands at " in done.stdout
    assert "do     start it after the fork" in done.stdout
    assert "\033" not in done.stdout
    assert done.stdout.index("Needs action") < done.stdout.index("Advice")
    assert forksafe(apps, "audit", "dirty").returncode == 0  # it is calling it that starts it
    assert forksafe(apps, "audit", "daemon").returncode == 1


def test_allow(apps: Path) -> None:
    """The pattern is the next word, or behind a ``=``."""
    for words in (("--allow=thread:MyMetrics*",), ("--allow", "thread:MyMetrics*", "--allow=lock")):
        done = forksafe(apps, "audit", *words, "daemon")
        assert done.returncode == 0, done
        assert "MyMetrics" not in done.stdout


def test_json(apps: Path) -> None:
    """Alone on stdout; what the target prints is on stderr."""
    done = forksafe(apps, "audit", "--json", "dirty:create()")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["target"] == "dirty:create()"
    (thread,) = (h for h in answer["hazards"] if h["kind"] == "thread")
    assert thread["severity"] == "action"
    fields = {"kind", "severity", "summary", "subject", "detail", "remedy", "where", "library"}
    assert set(thread) == fields
    assert "loading" in done.stderr


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("broken", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("clean:no_such_name", "AttributeError: module 'clean' has no attribute 'no_such_name'"),
        ("clean:", "ValueError: there is no name behind the colon of 'clean:'"),
        ("exits", "SystemExit: 0"),
    ],
)
def test_a_target_that_does_not_load(apps: Path, target: str, error: str) -> None:
    """Exit status 2, with the traceback: that of the target, without forksafe's own lines."""
    done = forksafe(apps, "audit", target)
    assert done.returncode == 2, done
    assert done.stderr.endswith(f"{error}\nforksafe audit: {target} does not load\n")
    assert (f"{target}.py" in done.stderr) is (target in ("broken", "exits"))
    assert "_audit.py" not in done.stderr and "importlib" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--allow=threads:x", "clean"),
        ("clean", "argument"),
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


@pytest.mark.parametrize("words", [("forks.py", "a", "--b"), ("-m", "forks", "a", "--b")])
def test_a_program_until_it_would_fork(apps: Path, words: tuple[str, ...]) -> None:
    """It has its arguments, and does not get to fork."""
    done = forksafe(apps, "audit", *words)
    assert done.returncode == 1, done
    assert "args ['a', '--b']" in done.stdout
    assert "MyMetrics-1" in done.stdout
    assert "forked" not in done.stdout


def test_programs_that_need_nothing(apps: Path) -> None:
    done = forksafe(apps, "audit", "./forks_clean.py")
    assert done.returncode == 0, done
    assert "forked" not in done.stdout
    done = forksafe(apps, "audit", "runs.py")
    assert done.returncode == 0, done
    assert "did not fork" in done.stderr


def test_a_program_that_fails_before_it_forks(apps: Path) -> None:
    """Its traceback, or what it gave to sys.exit(), is shown."""
    done = forksafe(apps, "audit", "fails.py")
    assert done.returncode == 2, done
    assert "ValueError: no" in done.stderr
    assert "_run.py" not in done.stderr
    done = forksafe(apps, "audit", "gives_up.py")
    assert done.returncode == 2, done
    assert done.stderr.startswith("no configuration\n")


def test_run_with_warnings(apps: Path) -> None:
    done = forksafe(apps, "run", "--audit=warn", "forks.py")
    assert done.returncode == 0, done
    assert done.stdout.endswith("forked\n")
    assert "forks.py:" in done.stderr and "ForkHazardWarning" in done.stderr
    done = forksafe(apps, "run", "--audit=warn", "--allow=thread:My*", "forks.py")
    assert "ForkHazardWarning" not in done.stderr


def test_run_and_refuse(apps: Path) -> None:
    """os.fork() raises, where there is a hazard, and only there."""
    done = forksafe(apps, "run", "--audit=raise", "forks.py")
    assert done.returncode == 1, done
    assert "UnsafeForkError" in done.stderr and "MyMetrics-1" in done.stderr
    assert "forked" not in done.stdout
    done = forksafe(apps, "run", "--audit=raise", "forks_clean.py")
    assert done.returncode == 0, done
    assert done.stdout.count("forked") == 1


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("package", "imported package\n"),
        ("runnable", "imported runnable\n"),
        ("runnable/", "ran __main__\n"),
        ("directory", "ran __main__\n"),
    ],
)
def test_a_directory_here(apps: Path, word: str, said: str) -> None:
    """A package is imported, as a server does it; one that is just a program is run."""
    done = forksafe(apps, "audit", word)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"{said}{word}: ")
    assert ("did not fork" in done.stderr) is said.startswith("ran")


def test_options_behind_the_module(apps: Path) -> None:
    """They are not taken for the module's, and it is said where they go."""
    done = forksafe(apps, "audit", "clean", "--json")
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "options go before it" in done.stderr.splitlines()[-1]


needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")


@pytest.mark.parametrize("redirect", [">&-", pytest.param(">/dev/full", marks=needs_full)])
@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("target", ["clean", "none", "prints", "forever", "./forks.py"])
def test_a_report_that_cannot_be_written(
    apps: Path, target: str, options: tuple[str, ...], redirect: str
) -> None:
    """Exit status 2, also where a thread never ends, and one line that says why."""
    done = forksafe(apps, "audit", *options, target, redirect=redirect)
    assert done.returncode == 2, done
    *rest, last = done.stderr.splitlines()
    assert last.startswith("forksafe audit: the report cannot be written: ")
    assert rest in ([], ["loading"], ["args []"])  # what the target prints


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_report_is_not_written_into_a_file_of_the_target(
    apps: Path, options: tuple[str, ...]
) -> None:
    """Where stdout is closed, the first file that is opened gets its number."""
    done = forksafe(apps, "audit", *options, "opens", redirect=">&-")
    assert done.returncode == 2, done
    assert "cannot be written" in done.stderr
    assert (apps / "log.txt").read_text() == "1\n"


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(("target", "status"), [("none", 0), ("closes", 0), ("closes_dirty", 1)])
def test_a_target_without_stdout(
    apps: Path, target: str, status: int, options: tuple[str, ...]
) -> None:
    """The report goes to the descriptor, which is still there."""
    done = forksafe(apps, "audit", *options, target)
    assert done.returncode == status, done
    assert done.stderr == ""
    if options:
        assert json.loads(done.stdout)["target"] == target
    else:
        assert done.stdout.startswith(f"{target}: ")


@pytest.mark.parametrize("redirect", ["2>&-", pytest.param(">/dev/full 2>&-", marks=needs_full)])
@pytest.mark.parametrize("target", ["prints", "runs.py", "fails.py"])
def test_without_stderr(apps: Path, target: str, redirect: str) -> None:
    """What would go there goes nowhere: stdout holds the JSON and nothing else."""
    done = forksafe(apps, "audit", "--json", target, redirect=redirect)
    if target == "fails.py" or "full" in redirect:
        assert (done.returncode, done.stdout) == (2, ""), done
    else:
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["target"] == target


def test_run_with_patterns_and_no_audit(apps: Path) -> None:
    """They would be of no effect; the program is not run."""
    done = forksafe(apps, "run", "--allow=thread", "runs.py")
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr == "forksafe run: --allow is of use with --audit only\n"


def test_run_with_a_wrong_pattern(apps: Path) -> None:
    done = forksafe(apps, "run", "--audit=warn", "--allow=threads:x", "runs.py")
    assert done.returncode == 2, done
    assert "no kind 'threads'" in done.stderr


def test_colour_on_a_terminal_only(apps: Path) -> None:
    """And not where NO_COLOR is set."""
    for variable, expected in (("", True), ("1", False)):
        parent, child = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "forksafe", "audit", "clean"],
            cwd=apps,
            stdin=subprocess.DEVNULL,
            stdout=child,
            env={**os.environ, "NO_COLOR": variable},
        )
        os.close(child)
        text = b""
        try:
            while part := os.read(parent, 65536):
                text += part
        except OSError:  # EIO: the other end is closed
            pass
        os.close(parent)
        assert process.wait() == 0
        assert (b"\033[" in text) is expected
