"""``pty.fork()`` forks by ``os.forkpty()`` where there is one: `install` reaches that too."""

from __future__ import annotations

from pathlib import Path

from harness import IDLE, Outcome, run_file
from witness import MIXED_REPLIES

TERMINAL = Path(__file__).with_name("programs") / "terminal.py"
ROUNDS = "150"


def fails_at_times(style: str) -> bool:
    """Tell whether one of a few runs fails: on a busy machine the two may miss each other."""
    return any(shared(run_file(TERMINAL, style, ROUNDS, idle=IDLE)) for _ in range(5))


def shared(outcome: Outcome) -> bool:
    """Tell whether the two have read each other's replies; either may notice."""
    return outcome.shows(*MIXED_REPLIES, "the child failed: ", "miscounted: ")


def test_the_child_in_the_terminal_is_whole() -> None:
    """It shares its parent's dict and lock, and has a terminal."""
    outcome = run_file(TERMINAL, "hook", ROUNDS)
    assert outcome.healthy, outcome


def test_fails_without_forksafe() -> None:
    """The child in the terminal shares its parent's connection."""
    assert fails_at_times("raw")


def test_replacing_os_fork_alone_does_not_reach_it() -> None:
    """That is what `install` is for."""
    assert fails_at_times("replace")
