"""Row 1: a manager's proxy used before the fork works in both processes (cpython gh-101320)."""

from __future__ import annotations

from harness import Forker, run, run_plain
from witness import MIXED_REPLIES

ROUNDS = 300
FAULTS = MIXED_REPLIES


def program(fork: Forker) -> None:
    with fork.package.get_context("fork").Manager() as manager:
        shared = manager.dict(parent=0, child=0)
        assert len(shared) == 2  # the first use connects

        def count(key: str) -> int:
            for number in range(ROUNDS):
                shared[key] = number
                assert shared[key] == number, "a reply to the other"
            return int(shared[key])

        child = fork(count, "child")
        count("parent")
        assert child.result() == ROUNDS - 1
        assert child.join() == 0
        assert dict(shared) == {"parent": ROUNDS - 1, "child": ROUNDS - 1}


def test_both_processes_use_the_proxy_at_once(style: str) -> None:
    """Each has a connection of its own."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


def test_breaks_under_os_fork() -> None:
    """Without forksafe replies mix, and one side hangs or cannot read its reply."""
    outcome = run_plain(program, "raw")
    assert outcome.shows(*FAULTS), outcome
