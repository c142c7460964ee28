"""Row 3: a recursive lock of multiprocessing that the parent holds is not the child's.

An ``RLock`` counts the entries of its holder, told by the thread's identity, and a fork copies
both; the lock's after-fork callback sets the count to zero.
"""

from __future__ import annotations

from harness import Forker, run

FAULTS = ("the child entered a lock the parent holds",)


def program(fork: Forker) -> None:
    lock = fork.package.get_context("fork").RLock()

    lock.acquire()  # no `with`: the child's way out must not pass the end of the block (row 19)
    assert fork.run(lock.acquire, False) is False, "the child entered a lock the parent holds"
    lock.release()

    def enter_twice() -> bool:
        with lock, lock:
            return True

    assert fork.run(enter_twice)
    assert lock.acquire(timeout=5)


def test_the_child_stays_out(style: str) -> None:
    """While the parent holds the lock the child does not get it; afterwards it does."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


def test_breaks_under_os_fork() -> None:
    """Without forksafe both are inside at once."""
    outcome = run(program, "raw")
    assert outcome.shows(*FAULTS), outcome
