"""Row 2: what a child puts into a queue that was used before the fork arrives.

A queue writes by a thread, started at the first ``put()``. A fork copies the note that it was
started, and not the thread; the queue's after-fork callback makes it forget.
"""

from __future__ import annotations

from harness import Forker, run

FAULTS = ("Empty",)


def program(fork: Forker) -> None:
    queue = fork.package.get_context("fork").Queue()
    queue.put("by the parent")
    assert queue.get(timeout=5) == "by the parent"

    fork.run(queue.put, "by the child")
    assert queue.get(timeout=2) == "by the child"  # raises Empty where it was lost

    queue.put("by the parent again")
    assert queue.get(timeout=5) == "by the parent again"


def test_the_childs_put_arrives(style: str) -> None:
    """The child starts a thread of its own, and its exit waits until that has written."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


def test_breaks_under_os_fork() -> None:
    """Without forksafe the child's item stays in its memory, and is gone with it."""
    outcome = run(program, "raw")
    assert outcome.shows(*FAULTS), outcome
