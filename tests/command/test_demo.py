"""``forksafe demo``: what it shows is what it saw, in time, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import LINUX, Started, command_of, environment, run

OURS = ("safe_fork", "install + os.fork", "forked")
ENDS = Path(__file__).parent / "programs" / "ends.py"
TIMEOUT = 110
# What becomes of the two sides under os.fork(), in words; never a name of our own.
WORDS = ("got the other process's answer", "raised ", "hung for 3 s", "unfinished after ")


def demo(program: str = "") -> None:
    from forksafe._command import _demo, main

    if program:
        _demo.PROGRAM = program
    else:  # more patience than a person has: the machine that runs the tests may be busy
        _demo.LIMIT = 60.0
    sys.argv[1:] = ["demo"]
    sys.exit(main())


def demo_without_fork() -> None:
    del os.fork
    demo()


def test_plain_fork_fails_and_ours_are_ok(tmp_path: Path) -> None:
    """The table's rows: os.fork breaks in a few round trips, and forksafe's make them all.

    From any directory, whatever is in it.
    """
    for name in ("json", "platform", "forksafe", "multiprocessing"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    result = run(demo, "", cwd=tmp_path, timeout=TIMEOUT)
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
    started = Started()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = started.start(command_of(demo, ""), environment(), **pipes)
    try:
        if number is not None:
            process.stdout.readline()
            while len(started.alive()) < 3:  # itself, the program, and its manager or child
                assert process.poll() is None
            process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == (0 if number is None else 128 + number)
        assert "Traceback" not in errors
        # Killed they are already; to be gone takes the kernel a moment.
        assert started.wait(10)
    finally:
        started.end()


def test_without_fork() -> None:
    """Where there is no os.fork it says so, and exits with 2."""
    result = run(demo_without_fork, "", timeout=TIMEOUT)
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
    from forksafe._command import _demo

    monkeypatch.setattr(_demo, "PROGRAM", str(ENDS))
    monkeypatch.setattr(_demo, "LIMIT", 2.0 if way.startswith("never") else TIMEOUT)
    row = _demo.run_style(way)
    assert (row["parent"], row["child"]) == trips
    assert row["outcome"] == outcome
    assert row["ok"] is (outcome == "ok")


def test_a_failure_of_ours_is_told() -> None:
    """Exit status 1, and what the program wrote to stderr is there."""
    result = run(demo, "", str(ENDS), timeout=TIMEOUT)
    assert result.returncode == 1
    assert "what happened" in result.stderr
    assert "forked                  7      7  exit status 3" in result.stdout
