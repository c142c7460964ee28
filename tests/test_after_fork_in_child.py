"""`forksafe.after_fork_in_child`, for children whose fork ran no hook, or ran it switched off."""

from __future__ import annotations

import os
from typing import Callable

import pytest
from harness import Forker, run
from witness import Start, Witness, by

import forksafe


def by_hand(fork: Start) -> Start:
    """Return a start whose child calls `forksafe.after_fork_in_child`, more than once."""

    def start(target: Callable[[], object]) -> None:
        def child() -> None:
            forksafe.after_fork_in_child()
            assert forksafe.last_reset() is not None
            forksafe.after_fork_in_child()
            target()
            forksafe.after_fork_in_child()

        fork(child)

    return start


def hook_off(fork: Forker) -> None:
    Witness().see(by_hand(by(os.fork)))


def hook_turned_off(fork: Forker) -> None:
    forksafe.install()
    forksafe.uninstall()
    witness = Witness()
    witness.see(by_hand(by(os.fork)))
    witness.see(by_hand(by(forksafe.safe_fork)))


def fork_in_c(fork: Forker) -> None:
    import ctypes

    libc = ctypes.CDLL(None)
    witness = Witness()
    witness.see(by_hand(by(libc.fork)))
    forksafe.install()
    witness.see(by_hand(by(libc.fork)))


def in_a_child_of_the_child(fork: Forker) -> None:
    witness = Witness()
    hand = by_hand(by(os.fork))

    def start(target: Callable[[], object]) -> None:
        hand(lambda: hand(target))

    witness.see(start, depth=2)


def recurring_pid(fork: Forker) -> None:
    """A descendant that the kernel gives the pid that its forebear had.

    No managers: a ``Finalize`` made under the patch would not know its own process again.
    """
    pid = os.getpid()

    def namesake_of_the_parent() -> int:
        child = os.fork()
        if child == 0:
            os.getpid = lambda: pid
        return child

    Witness(managers=False).see(by_hand(by(namesake_of_the_parent)))


def never_forked(fork: Forker) -> None:
    witness = Witness()
    forksafe.after_fork_in_child()
    assert witness.calls == []
    assert forksafe.last_reset() is None


PROGRAMS = [hook_off, hook_turned_off, fork_in_c, in_a_child_of_the_child, recurring_pid]


@pytest.mark.parametrize("program", [*PROGRAMS, never_forked])
def test_resets_once(program: Callable[[Forker], None]) -> None:
    """In each child that was not reset, once; elsewhere not at all."""
    outcome = run(program, "raw")
    assert outcome.healthy, outcome
