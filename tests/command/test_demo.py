"""``forksafe demo``: what it shows is what it saw, in time, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OURS = ("safe_fork", "install + os.fork", "forked")
# With more patience than a person has: the machine that runs the tests may be busy.
MAIN = """
import sys
sys.path.pop(0)
from forksafe.__main__ import main
from forksafe._command import _demo
_demo.LIMIT, _demo.START = 100.0, 60.0
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", MAIN, "demo"]
TIMEOUT = 110
LINUX = sys.platform == "linux"


def demo(*options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, timeout=TIMEOUT, cwd=cwd
    )


def marked(mark: str) -> list[int]:
    """Return the pids of all processes that have `mark` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append(int(entry.name))
        except OSError:  # it has ended meanwhile, or is another user's
            pass
    return found


def test_plain_fork_fails_and_ours_are_ok(tmp_path: Path) -> None:
    """The table's rows: os.fork breaks in a few round trips, and forksafe's make them all."""
    result = demo()
    assert result.returncode == 0, result
    assert result.stderr == ""
    table = result.stdout.partition("\n\n")[2].splitlines()
    assert table[0].split() == ["style", "parent", "child", "outcome"]
    assert len(table) >= 5
    for style, line in zip(OURS, table[2:]):
        assert line.removeprefix(style).split() == ["500", "500", "ok"]
    plain = table[1].split(maxsplit=3)
    assert plain[0] == "os.fork"
    assert int(plain[1]) < 500 or int(plain[2]) < 500
    assert plain[3] != "ok"


def test_json(tmp_path: Path) -> None:
    """Only JSON on stdout; the progress on stderr. From any directory, whatever is in it."""
    for name in ("json", "selectors", "forksafe", "multiprocessing"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    result = demo("--json", cwd=tmp_path)
    assert result.returncode == 0, result
    assert "safe_fork ... ok" in result.stderr
    told = json.loads(result.stdout)
    assert told["ok"] is True
    assert [row["style"] for row in told["styles"]] == ["os.fork", *OURS]
    plain, *ours = told["styles"]
    assert not plain["ok"]
    assert plain["outcome"] != "ok"
    for row in ours:
        assert (row["parent"], row["child"], row["outcome"]) == (500, 500, "ok")


@pytest.mark.skipif(not LINUX, reason="looks for the processes in /proc")
@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_behind(number: signal.Signals | None) -> None:
    """All processes are gone when it ends, of itself or by a signal."""
    mark = f"FORKSAFE_TEST_MARK={os.getpid()}.{time.monotonic_ns()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, name: value},
    )
    assert process.stdout is not None
    if number is not None:
        process.stdout.readline()
        while len(marked(mark)) < 3:  # itself, the program, and its manager or child
            assert process.poll() is None
        process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == (0 if number is None else 128 + number)
    assert "Traceback" not in errors
    # Killed they are already; to be gone takes the kernel a moment.
    deadline = time.monotonic() + 10
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert marked(mark) == []


def test_without_fork() -> None:
    """Where there is no os.fork it says so, and exits with 2."""
    code = (
        "import os; del os.fork; import sys; from forksafe.__main__ import main; sys.exit(main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "demo"], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "this platform has no os.fork()" in result.stderr
    assert result.stderr.count("\n") == 1


WATCHED = """
import sys, time
from forksafe._command import _demo, _demo_program

_demo.PATIENCE, _demo.START = 0.5, 20.0
_demo_program.__file__ = sys.argv[1]
result = _demo._run_style("safe_fork", time.monotonic() + float(sys.argv[2]))
print(result.round_trips["parent"], result.round_trips["child"], result.ok, result.outcome)
"""
END = 'end = \'\\n{"side": "%s", "outcome": "ok"}\\n\'; import os, sys, time\n'


@pytest.mark.parametrize(
    ("program", "limit", "expected"),
    [
        (
            "print('parent\\nchild\\nchild'); print(end % 'parent', end % 'child')",
            60,
            "1 2 True ok",
        ),
        (
            "print('parent', end % 'parent', sep='', flush=True); time.sleep(60)",
            60,
            "1 0 False parent: ok; child: hung after 0.5 s",
        ),
        ("print('child', flush=True); time.sleep(60)", 60, "0 1 False hung after 0.5 s"),
        (
            "print('child', end % 'parent', end % 'child', sep='', flush=True); time.sleep(60)",
            60,
            "0 1 False did not end",
        ),
        ("print(end % 'parent', end % 'child'); sys.exit(3)", 60, "0 0 False exit status 3"),
        ("os.kill(os.getpid(), 9)", 60, "0 0 False ended without a word; exit status -9"),
        ("time.sleep(60)", 0.3, "0 0 False unfinished after 0 s"),
    ],
)
def test_what_is_seen_is_what_is_told(
    tmp_path: Path, program: str, limit: float, expected: str
) -> None:
    """The watcher, with programs that end in each of the ways there are."""
    path = tmp_path / "program.py"
    path.write_text(END + program + "\n")
    result = subprocess.run(
        [sys.executable, "-c", WATCHED, str(path), str(limit)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.stdout.strip() == expected, result.stderr


def test_a_failure_of_ours_is_told(tmp_path: Path) -> None:
    """Exit status 1, and what the program wrote goes to stderr; a lucky os.fork is told as such."""
    path = tmp_path / "program.py"
    path.write_text(
        END + "print(end % 'parent', end % 'child')\n"
        "if sys.argv[1] == 'forked': print('what happened'); sys.exit(1)\n"
    )
    code = (
        "import sys; from forksafe._command import _demo, _demo_program;"
        "_demo_program.__file__ = sys.argv[1]; sys.exit(_demo.demo())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert result.returncode == 1
    assert "what happened" in result.stderr
    assert "os.fork() happened to work this time" in result.stdout
    assert "Not ok, though forksafe made it: forked." in result.stdout
