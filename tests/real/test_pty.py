"""``pty.fork()`` forks by ``os.forkpty()`` where there is one: `install` reaches that too."""

from __future__ import annotations

from launch import run

ROUNDS = "150"


def test_the_child_in_the_terminal_is_whole() -> None:
    """It shares its parent's dict and lock, and has a terminal."""
    outcome = run("install", "terminal.py", ROUNDS)
    assert outcome.healthy, outcome


def test_fails_without_forksafe() -> None:
    """The child in the terminal shares its parent's connection."""
    assert not run("plain", "terminal.py", ROUNDS, timeout=10).healthy


def test_replacing_os_fork_alone_does_not_reach_it() -> None:
    """That is what `install` is for."""
    assert not run("replace", "terminal.py", ROUNDS, timeout=10).healthy
