"""Row 11, at its worst moments: work is being submitted, handed over or begun at the fork."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import READS_STACKS, Forker, run, run_plain


def handed_over(fork: Forker) -> None:
    """Since 3.13 the queue gives work to a thread that waits, before that thread runs."""
    import gc
    import threading
    from concurrent.futures import BrokenExecutor, ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    executor.submit(abs, -1).result()

    for _ in range(5):
        time.sleep(0.05)  # until its thread waits for work
        go = threading.Event()
        future: Any = executor.submit(go.wait, 10)
        gc.collect(1)  # the work is none of the youngest objects any more

        def child(future: Any = future) -> bool:
            return isinstance(future.exception(5), BrokenExecutor)

        assert fork.run(child)
        go.set()
        assert future.result()
    executor.shutdown()


def handed_over_at_once(fork: Forker) -> None:
    """Right before the fork, so that the thread has not run since: 60 of 300 on a busy machine."""
    import threading
    from concurrent.futures import BrokenExecutor, ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    executor.submit(abs, -1).result()
    for number in range(100):
        time.sleep(0.003)  # until its thread waits for work
        go = threading.Event()
        future = executor.submit(go.wait, 10)
        pid = fork.os_fork()
        if pid == 0:
            try:
                os._exit(0 if isinstance(future.exception(5), BrokenExecutor) else 1)
            finally:
                os._exit(2)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == 0, f"child {number} waits for work that nobody does"
        go.set()
        assert future.result()
    executor.shutdown()


@pytest.mark.skipif(not READS_STACKS, reason="begun work is not found there")
@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_work_that_was_handed_over_just_now(style: str) -> None:
    """The other ways to fork let the thread run before they do."""
    outcome = run(handed_over_at_once, style)
    assert outcome.healthy, outcome


def begun_late(fork: Forker) -> None:
    """What an earlier at-fork hook takes its time for goes on behind forksafe's look."""
    import sys
    import threading
    from concurrent.futures import BrokenExecutor, ThreadPoolExecutor

    assert "forksafe" not in sys.modules or fork.style in ("hook", "process")
    executor = ThreadPoolExecutor(1)
    go = threading.Event()
    first = executor.submit(time.sleep, 0.05)
    second = executor.submit(go.wait, 10)

    def child() -> bool:
        first.exception(5)
        return isinstance(second.exception(5), BrokenExecutor)

    assert fork.run(child)
    go.set()
    assert second.result()
    executor.shutdown()


def first_submit(fork: Forker) -> None:
    """Another thread is inside the first submit() of an executor, and holds its lock."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    within, release = threading.Event(), threading.Event()

    class Lock:
        """A lock behind which the thread waits, as it does for the lock that a fork holds."""

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            self.lock.acquire()
            within.set()
            release.wait()

        def __exit__(self, *exc: object) -> None:
            self.lock.release()

    executor: Any = ThreadPoolExecutor(1)
    executor._shutdown_lock = Lock()
    thread = threading.Thread(target=executor.submit, args=(abs, -1))
    thread.start()
    within.wait()

    def child() -> int:
        return int(executor.submit(abs, -3).result(5))

    try:
        assert fork.run(child) == 3
    finally:
        release.set()
        thread.join()
    assert executor.submit(abs, -2).result() == 2
    executor.shutdown()


def beside_an_odd_one(fork: Forker) -> None:
    """One executor with a queue of the program's own does not cost the others their reset."""
    import queue
    from concurrent.futures import ThreadPoolExecutor

    class Bounded(ThreadPoolExecutor):
        def __init__(self, workers: int, waiting: int) -> None:
            super().__init__(workers)
            self._work_queue: Any = queue.Queue(waiting)

    usual, odd, other = ThreadPoolExecutor(1), Bounded(1, 4), ThreadPoolExecutor(1)
    for executor in (usual, odd, other):
        assert executor.submit(abs, -1).result() == 1

    def child() -> tuple[int, int, str]:
        import forksafe

        told = forksafe.last_reset() or {}
        return (
            usual.submit(abs, -2).result(5),
            other.submit(abs, -3).result(5),
            told["thread pools"],
        )

    two, three, told = fork.run(child, end="_exit")
    assert (two, three) == (2, 3)
    assert told.startswith("unknown layout: an executor's queue")
    for executor in (usual, odd, other):
        executor.shutdown()


PROGRAMS = [handed_over, first_submit, beside_an_odd_one]


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_waits_for_ever(program: Callable[[Forker], None], style: str) -> None:
    """Neither the futures of the parent's work, nor what is submitted in the child."""
    if not READS_STACKS and program is not beside_an_odd_one:
        pytest.skip("work that another thread has begun is not found there")
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("plain", ["raw", "process-plain"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_breaks_without(program: Callable[[Forker], None], plain: str) -> None:
    """The child waits for work that nobody does."""
    outcome = run_plain(program, plain)
    assert outcome.shows("hung"), outcome


SLOW_HOOK = """
import os, time
os.register_at_fork(before=lambda: time.sleep(0.2))
"""


@pytest.mark.skipif(not READS_STACKS, reason="begun work is not found there")
def test_work_that_begins_behind_the_look(style: str, tmp_path: Any) -> None:
    """A hook that was registered before forksafe's runs after it."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_HOOK)
    outcome = run(begun_late, style, env={"PYTHONPATH": str(tmp_path)})
    assert outcome.healthy, outcome


def in_its_thread(fork: Forker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from forksafe import safe_fork

    parent = os.getpid()
    pids: list[int] = []
    read, write = os.pipe()

    def work() -> None:
        time.sleep(0.2)  # until the executor has told its thread to end
        pids.append(os.fork() if fork.style == "hook" else safe_fork())

    with ThreadPoolExecutor(1) as executor:
        executor.submit(work)
        executor.submit(os.write, write, b"x")
    if os.getpid() == parent:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if os.waitpid(pids[0], os.WNOHANG)[0]:
                assert os.read(read, 9) == b"x", "the child has done its parent's work again"
                return
            time.sleep(0.01)
        os.kill(pids[0], 9)
        raise AssertionError("the child does not end")


@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_a_child_of_a_thread_that_was_told_to_end(style: str) -> None:
    """It is the child's main thread, and ends with its work, as under a bare fork."""
    outcome = run(in_its_thread, style)
    assert outcome.healthy, outcome
    assert outcome.stderr == "", "it takes its parent's work for its own"
