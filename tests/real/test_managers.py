"""The programs of cpython gh-101320, with an end to their loops: they fail without forksafe."""

from __future__ import annotations

import pytest
from launch import OURS, run
from sessions import IDLE

PROGRAMS = ("shared_dict.py", "forks_of_forks.py")
ROUNDS = "150"


@pytest.mark.parametrize("way", OURS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_parent_and_children_use_the_object_at_once(program: str, way: str) -> None:
    """Every process reads what was written, to the end."""
    outcome = run(way, program, ROUNDS)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("program", PROGRAMS)
def test_fails_without_forksafe(program: str) -> None:
    """Replies mix: a process hangs, or cannot read what it got."""
    assert not run("plain", program, ROUNDS, idle=IDLE).healthy
