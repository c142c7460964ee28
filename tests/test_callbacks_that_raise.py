"""A callback that raises, whatever it raises, stops neither the others nor the fork."""

from __future__ import annotations

import os
from typing import Callable

import pytest
from harness import Forker, run
from witness import Witness, by, by_forked

import forksafe


def raise_in_one_callback(exc: BaseException) -> None:
    forksafe.install()
    witness = Witness(exc)
    witness.see(by(os.fork))
    witness.see(by(forksafe.safe_fork))
    witness.see(by_forked)

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(forksafe.last_reset()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    told = os.read(read, 4096).decode()
    assert repr(exc) in told, told
    assert forksafe.last_reset() is None, "the parent tells of a reset"


def an_exception(fork: Forker) -> None:
    raise_in_one_callback(ValueError("of a callback"))


def system_exit(fork: Forker) -> None:
    raise_in_one_callback(SystemExit("of a callback"))


def keyboard_interrupt(fork: Forker) -> None:
    raise_in_one_callback(KeyboardInterrupt("of a callback"))


@pytest.mark.parametrize("program", [an_exception, system_exit, keyboard_interrupt])
def test_the_others_run_and_the_fork_returns(program: Callable[[Forker], None]) -> None:
    """Also SystemExit and KeyboardInterrupt; sys.unraisablehook and last_reset() tell of it."""
    outcome = run(program, "raw")
    assert outcome.healthy, outcome
    assert (
        "Exception ignored in: forksafe, in a forked child: after-fork callback" in outcome.output
    )
    assert "of a callback" in outcome.output
