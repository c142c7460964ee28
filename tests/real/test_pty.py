"""``pty.fork()`` forks by ``os.forkpty()`` where there is one: `install` reaches that too."""

from __future__ import annotations

from launch import run
from sessions import IDLE

ROUNDS = "150"


def fails_at_times(style: str) -> bool:
    """Tell whether one of a few runs fails: on a busy machine the two may miss each other."""
    return not all(run(style, "terminal.py", ROUNDS, idle=IDLE).healthy for _ in range(5))


def test_the_child_in_the_terminal_is_whole() -> None:
    """It shares its parent's dict and lock, and has a terminal."""
    outcome = run("install", "terminal.py", ROUNDS)
    assert outcome.healthy, outcome


def test_fails_without_forksafe() -> None:
    """The child in the terminal shares its parent's connection."""
    assert fails_at_times("plain")


def test_replacing_os_fork_alone_does_not_reach_it() -> None:
    """That is what `install` is for."""
    assert fails_at_times("replace")
