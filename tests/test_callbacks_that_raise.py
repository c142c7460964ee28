"""A callback that raises, whatever it raises, stops neither the others nor the fork. It is told."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable

import pytest
from harness import Forker, run
from witness import FAMILIES, Witness, by, by_forked

import forksafe


def raise_in_one_callback(exc: BaseException) -> None:
    forksafe.install()
    told: list[str] = []
    sys.unraisablehook = lambda args: told.append(repr(args.exc_value))
    witness = Witness(exc, told=lambda: told == [repr(exc)] * len(FAMILIES))
    witness.see(by(os.fork))
    witness.see(by(forksafe.safe_fork))
    witness.see(by_forked)
    assert told == [], "told in the parent"
    assert forksafe.last_reset() is None, "the parent tells of a reset"

    def child() -> None:
        last: Any = forksafe.last_reset()
        assert repr(exc) in str(last), last

    by(os.fork)(child)


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
