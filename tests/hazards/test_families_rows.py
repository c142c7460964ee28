"""Rows 1 to 6 for the packages that forked ``multiprocessing`` itself, the real ones.

``multiprocess`` (pathos) has registries and children of its own. ``billiard`` (Celery) has children
of its own and shares the registries of ``multiprocessing.util``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Callable

import pytest
import test_01_manager_proxy
import test_02_queue
import test_03_rlock
import test_04_thread_lock
import test_05_finalizers
import test_06_children
from harness import Forker, run

FAMILIES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"),
    )
    for name in ("multiprocess", "billiard")
]
ROWS = [
    test_01_manager_proxy,
    test_02_queue,
    test_03_rlock,
    test_04_thread_lock,
    test_05_finalizers,
    test_06_children,
]
IDS = [row.__name__.removeprefix("test_") for row in ROWS]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("program", [row.program for row in ROWS], ids=IDS)
def test_whole_in_every_family(program: Callable[[Forker], None], style: str, family: str) -> None:
    """What holds for multiprocessing holds for its forks."""
    outcome = run(program, f"{style}:{family}")
    assert outcome.healthy, outcome
    assert "can only join a child process" not in outcome.output


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_breaks_under_os_fork(row: Any, family: str) -> None:
    """Without forksafe each breaks there as well."""
    outcome = run(row.program, f"raw:{family}", idle=3.0)  # some have waits of two seconds
    assert outcome.shows(*row.FAULTS), outcome
