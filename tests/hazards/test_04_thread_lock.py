"""Row 4: a ``ForkAwareThreadLock`` that another thread held at the fork is free in the child.

Its after-fork callback makes it anew. The managers' proxies all share one of them.
"""

from __future__ import annotations

from harness import Forker, run

FAULTS = ("the child waits for a thread that it does not have",)


def program(fork: Forker) -> None:
    import threading

    lock = fork.module("util").ForkAwareThreadLock()
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert fork.run(lock.acquire, True, 2), "the child waits for a thread that it does not have"
        assert not lock.acquire(False), "the parent's lock was let go"
    finally:
        let_go.set()
        thread.join()
    assert lock.acquire(True, 3)


def test_the_lock_is_free_in_the_child(style: str) -> None:
    """In the parent it stays the holder's."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


def test_breaks_under_os_fork() -> None:
    """Without forksafe it stays locked for ever."""
    outcome = run(program, "raw")
    assert outcome.shows(*FAULTS), outcome
