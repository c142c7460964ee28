"""The programs of cpython gh-101320, with an end to their loops: they fail without forksafe."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import IDLE, run_file
from witness import MIXED_REPLIES

FOLDER = Path(__file__).with_name("programs")
PROGRAMS = ("shared_dict.py", "forks_of_forks.py")
ROUNDS = "150"


@pytest.mark.parametrize("style", ["hook", "replace"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_parent_and_children_use_the_object_at_once(program: str, style: str) -> None:
    """Every process reads what was written, to the end."""
    outcome = run_file(FOLDER / program, style, ROUNDS)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("program", PROGRAMS)
def test_fails_without_forksafe(program: str) -> None:
    """Replies mix: a process hangs, or cannot read what it got; on a busy machine late."""
    outcome = run_file(FOLDER / program, "raw", ROUNDS + "0", idle=IDLE)
    ours = ("read what nobody wrote", "the parent reads something else than it wrote")
    assert outcome.shows(*MIXED_REPLIES, *ours), outcome
