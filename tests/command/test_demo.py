"""``forksafe demo``: what it shows is what it saw, in time, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forksafe._command import _demo

OURS = ("safe_fork", "install + os.fork", "forked")
# With more patience than a person has: the machine that runs the tests may be busy.
MAIN = """
import sys
sys.path.pop(0)
from forksafe.__main__ import main
from forksafe._command import _demo
_demo.LIMIT = 60.0
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", MAIN, "demo"]
ENDS = Path(__file__).parent / "programs" / "ends.py"
TIMEOUT = 110
LINUX = sys.platform == "linux"
# What becomes of the two sides under os.fork(), in words; never a name of our own.
WORDS = ("got the other process's answer", "raised ", "hung for 3 s", "unfinished after ")


def demo(cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(COMMAND, capture_output=True, text=True, timeout=TIMEOUT, cwd=cwd)


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
    """The table's rows: os.fork breaks in a few round trips, and forksafe's make them all.

    From any directory, whatever is in it.
    """
    for name in ("json", "platform", "forksafe", "multiprocessing"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    result = demo(tmp_path)
    assert result.returncode == 0, result
    assert result.stderr == ""
    table = result.stdout.partition("\n\n")[2]
    head, plain, *rest = table.splitlines()
    assert head.split() == ["way", "to", "fork", "parent", "child", "outcome"]
    style, parent, child, outcome = plain.split(maxsplit=3)
    assert style == "os.fork"
    assert int(parent) < 500 or int(child) < 500
    assert any(word in outcome for word in WORDS)
    assert "WrongAnswer" not in table
    for style, line in zip(OURS, rest[-3:]):
        assert line.removeprefix(style).split() == ["500", "500", "ok"]


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
    code = "import os, sys; del os.fork; from forksafe.__main__ import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", code, "demo"], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "this platform has no os.fork()" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("way", "trips", "outcome"),
    [
        ("well", (7, 7), "ok"),
        ("with_wrong_answers", (7, 7), "both got the other process's answer"),
        ("with_a_child_that_hangs", (7, 7), "parent ok; child hung for 3 s"),
        ("with_a_child_that_dies", (7, 0), "parent ok; child died without a word"),
        ("never_for_the_child", (7, 0), "parent ok; child unfinished after 2 s"),
        ("never", (7, 7), "unfinished after 2 s"),
        ("with_a_status", (7, 7), "exit status 3"),
        ("killed", (0, 0), "both died without a word"),
    ],
)
def test_what_is_seen_is_what_is_told(
    monkeypatch: pytest.MonkeyPatch, way: str, trips: tuple[int, int], outcome: str
) -> None:
    """With programs that end in each of the ways there are."""
    monkeypatch.setattr(_demo, "PROGRAM", str(ENDS))
    monkeypatch.setattr(_demo, "LIMIT", 2.0 if way.startswith("never") else TIMEOUT)
    row = _demo.run_style(way)
    assert (row["parent"], row["child"]) == trips
    assert row["outcome"] == outcome
    assert row["ok"] is (outcome == "ok")


def test_a_failure_of_ours_is_told() -> None:
    """Exit status 1, and what the program wrote to stderr is there."""
    code = MAIN.replace("_demo.LIMIT = 60.0", f"_demo.PROGRAM = {str(ENDS)!r}")
    result = subprocess.run(
        [sys.executable, "-c", code, "demo"], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert result.returncode == 1
    assert "what happened" in result.stderr
    assert "forked                  7      7  exit status 3" in result.stdout
