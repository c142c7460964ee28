"""Row 11: an inherited ThreadPoolExecutor works in the child, and runs no work of the parent."""

from __future__ import annotations

import os
import signal
from threading import Event
from typing import Any

import pytest
from harness import PYPY, READS_STACKS, Forker, raising, run, run_plain

NEEDS_STACKS = pytest.mark.skipif(not READS_STACKS, reason="begun work is not found there")


def program(fork: Forker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    assert executor.submit(os.getpid).result() == os.getpid()

    def child() -> tuple[int, list[int]]:
        return executor.submit(os.getpid).result(), list(executor.map(abs, [-1, -2, -3]))

    started = fork(child)
    assert started.result() == (started.pid, [1, 2, 3])
    assert started.join() == 0
    assert executor.submit(os.getpid).result() == os.getpid()
    executor.shutdown()


def test_submit_and_map_work(style: str) -> None:
    """In the child, and after that in the parent."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_breaks_without(style: str) -> None:
    """The child's work is queued for a thread that is not there."""
    outcome = run_plain(program, style)
    assert outcome.shows("hung"), outcome


def configured(fork: Forker) -> None:
    import threading
    from concurrent.futures import ThreadPoolExecutor

    prepared = threading.local()

    def prepare(value: str) -> None:
        prepared.value = value

    def look() -> tuple[str, str]:
        return threading.current_thread().name, prepared.value

    with ThreadPoolExecutor(
        2, thread_name_prefix="cook", initializer=prepare, initargs=("salt",)
    ) as executor:
        assert executor.submit(look).result() == ("cook_0", "salt")

        def child() -> tuple[tuple[str, str], int]:
            gate = threading.Barrier(3)
            futures = [executor.submit(gate.wait) for _ in range(2)]
            gate.wait(10)  # the limit is kept: two threads, and no third
            for future in futures:
                future.result()
            return executor.submit(look).result(), len(executor._threads)

        (name, value), threads = fork.run(child)
        assert name in ("cook_0", "cook_1") and value == "salt" and threads == 2
        assert executor.submit(look).result()[1] == "salt"


def test_initializer_names_and_limit_are_kept(style: str) -> None:
    """What the executor was made with, it has in the child."""
    outcome = run(configured, style)
    assert outcome.healthy, outcome


def busy(begun: Event, release: Event) -> bool:
    begun.set()
    return release.wait()


def not_twice(fork: Forker) -> None:
    import threading
    from concurrent.futures import (
        FIRST_COMPLETED,
        BrokenExecutor,
        Future,
        ThreadPoolExecutor,
        as_completed,
        wait,
    )

    read, write = os.pipe()
    begun, release = threading.Event(), threading.Event()

    def work(mark: bytes) -> bytes:
        begun.set()
        release.wait()
        os.write(write, mark)
        return mark

    executor = ThreadPoolExecutor(1)
    done: Future[Any] = executor.submit(abs, -5)
    assert done.result() == 5
    futures: list[Future[Any]] = [executor.submit(work, mark) for mark in (b"a", b"b", b"c")]
    cancelled = executor.submit(work, b"d")
    assert cancelled.cancel()
    begun.wait()
    told: list[int] = []
    futures[1].add_done_callback(lambda _: told.append(os.getpid()))
    completed = as_completed([*futures, done])
    assert next(completed) is done

    def child() -> list[str]:
        release.set()
        assert done.result() == 5
        for future in futures:
            assert future.done()
            with raising(BrokenExecutor, match=f"process {parent},.* submit it again"):
                future.result()
        assert cancelled.cancelled()
        assert not wait([*futures, cancelled, done]).not_done
        assert wait(futures, return_when=FIRST_COMPLETED).done
        assert set(completed) == set(futures)  # the one begun before the fork
        assert executor.submit(abs, -1).result() == 1
        executor.shutdown()
        assert told == []  # the program's callbacks are for the parent
        return [type(future.exception()).__name__ for future in futures]

    parent = os.getpid()
    assert fork.run(child) == ["BrokenThreadPool"] * 3
    release.set()
    assert [future.result() for future in futures] == [b"a", b"b", b"c"]
    executor.shutdown()
    assert set(completed) == set(futures)
    assert told == [parent]
    os.close(write)
    assert os.read(read, 10) == b"abc"


@NEEDS_STACKS
def test_the_parents_work_runs_once_and_its_futures_raise(style: str) -> None:
    """Queued or running: once, in the parent; in the child its futures do not hang anybody."""
    outcome = run(not_twice, style)
    assert outcome.healthy, outcome


def shut_down(fork: Forker) -> None:
    import threading
    from concurrent.futures import BrokenExecutor, ThreadPoolExecutor

    begun, release = threading.Event(), threading.Event()
    executor = ThreadPoolExecutor(1)
    running = executor.submit(busy, begun, release)
    queued = executor.submit(abs, -1)
    begun.wait()
    executor.shutdown(wait=False)
    forgotten = ThreadPoolExecutor(1)
    held = forgotten.submit(release.wait)
    behind = forgotten.submit(abs, -2)
    del forgotten

    def child() -> str:
        for future in (running, queued, held, behind):
            assert isinstance(future.exception(), BrokenExecutor)
        executor.shutdown()  # waits for nobody
        try:
            executor.submit(abs, -1)
        except RuntimeError as exc:
            return str(exc)
        return "accepted"

    assert "after shutdown" in fork.run(child)
    release.set()
    assert queued.result() == 1
    assert behind.result() == 2
    executor.shutdown()


@NEEDS_STACKS
def test_shutdown_is_kept(style: str) -> None:
    """An executor that was shut down, or let go of, with work left."""
    outcome = run(shut_down, style)
    assert outcome.healthy, outcome


def locked(fork: Forker) -> None:
    import threading
    from concurrent.futures import ThreadPoolExecutor

    executor: Any = ThreadPoolExecutor(1)
    begun, release = threading.Event(), threading.Event()
    running = executor.submit(busy, begun, release)
    begun.wait()
    held, unlock = threading.Event(), threading.Event()

    def hold() -> None:
        with executor._shutdown_lock, executor._idle_semaphore._cond, running._condition:
            held.set()
            unlock.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def child() -> int:
        assert running.exception() is not None
        value: int = executor.submit(abs, -1).result()
        executor.shutdown()
        return value

    try:
        assert fork.run(child) == 1
    finally:
        unlock.set()
        release.set()
        thread.join()


@NEEDS_STACKS
def test_locks_held_by_vanished_threads(style: str) -> None:
    """Another thread was inside submit(), another inside set_result()."""
    outcome = run(locked, style)
    assert outcome.healthy, outcome


def from_its_own_thread(fork: Forker) -> None:
    import threading
    from concurrent.futures import BrokenExecutor, ThreadPoolExecutor

    executor = ThreadPoolExecutor(2)
    begun, release = threading.Event(), threading.Event()
    other = executor.submit(busy, begun, release)
    begun.wait()

    def child() -> int:
        assert isinstance(other.exception(), BrokenExecutor)
        assert not own.done()  # this is the work, and it goes on
        return executor.submit(abs, -3).result()

    # An executor's thread keeps SystemExit to itself, unless Process or forked() is around it.
    end = "exit" if fork.style in ("forked", "process") else "_exit"

    def work() -> int:
        ready.wait()
        return int(fork.run(child, end=end))

    ready = threading.Event()
    own = executor.submit(work)
    ready.set()
    assert own.result() == 3
    release.set()
    other.result()
    executor.shutdown()


@NEEDS_STACKS
def test_fork_from_its_own_thread(style: str) -> None:
    """The thread that forks goes on in the child, in the middle of its work."""
    outcome = run(from_its_own_thread, style)
    assert outcome.healthy, outcome
    assert "cannot join" not in outcome.output


def own_thread_goes_on(fork: Forker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import forksafe

    executor = ThreadPoolExecutor(1)
    read, write = os.pipe()

    def work() -> int:
        pid = forksafe.safe_fork()
        if pid == 0:  # the rest of this work, and this thread's next, in the child
            executor.submit(lambda: (os.write(write, b"next"), os._exit(0)))
        return pid

    pid = executor.submit(work).result()
    assert os.waitpid(pid, 0) == (pid, 0)
    assert os.read(read, 10) == b"next"


def test_own_thread_goes_on_working() -> None:
    """In the child it is the executor's one thread, and finishes what it was doing."""
    outcome = run(own_thread_goes_on, "safe_fork")
    assert outcome.healthy, outcome


def from_a_signal_handler(fork: Forker) -> None:
    import threading
    from concurrent.futures import BrokenExecutor, ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    release = threading.Event()
    future = executor.submit(release.wait)
    pids = []

    def handler(number: int, frame: object) -> None:
        pids.append(os.fork() if fork.style == "hook" else safe_fork())

    from forksafe import safe_fork

    signal.signal(signal.SIGUSR1, handler)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    threading.Timer(0.6, release.set).start()
    try:
        future.result()  # interrupted in here, by the handler that forks
    except BrokenExecutor:
        assert pids == [0], pids  # the child's wait has ended
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 7


@NEEDS_STACKS
@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_fork_in_a_handler_that_interrupts_a_wait(style: str) -> None:
    """The thread that waits for the future is the one that goes on in the child."""
    outcome = run(from_a_signal_handler, style)
    assert outcome.healthy, outcome


def forks_of_forks(fork: Forker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(2)
    executor.submit(abs, -1).result()

    def child(depth: int) -> int:
        assert executor.submit(abs, -depth).result() == depth
        return 1 + (fork.run(child, depth - 1, end="_exit") if depth > 1 else 0)

    assert fork.run(child, 3, end="_exit") == 3
    assert executor.submit(abs, -1).result() == 1


def test_forks_of_forks(style: str) -> None:
    """Each generation has threads of its own."""
    outcome = run(forks_of_forks, style)
    assert outcome.healthy, outcome


def default_executor(fork: Forker) -> None:
    import asyncio
    from concurrent.futures import BrokenExecutor

    loop = asyncio.new_event_loop()

    async def ask() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, os.getpid)

    assert loop.run_until_complete(ask()) == os.getpid()

    import threading

    begun, release = threading.Event(), threading.Event()

    async def leave_running() -> asyncio.Future[bool]:
        running = asyncio.get_running_loop().run_in_executor(None, busy, begun, release)
        begun.wait()
        return running

    left = loop.run_until_complete(leave_running())

    def child() -> tuple[int, bool]:
        async def wait_for_it() -> bool:
            try:
                await asyncio.wait_for(left, 10)
            except BrokenExecutor:
                return True
            return False

        return loop.run_until_complete(ask()), loop.run_until_complete(wait_for_it())

    started = fork(child)
    assert started.result() == (started.pid, True)
    assert started.join() == 0
    release.set()
    assert loop.run_until_complete(left) is True
    assert loop.run_until_complete(ask()) == os.getpid()
    loop.close()


@NEEDS_STACKS
def test_default_executor_of_a_loop(style: str) -> None:
    """run_in_executor(None, ...) in the child; a task waiting for the parent's work is told."""
    outcome = run(default_executor, style)
    assert outcome.healthy, outcome


def leaving(fork: Forker) -> None:
    import gc
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(2)
    list(executor.map(abs, range(4)))

    def child() -> bool:
        nonlocal executor
        executor.submit(abs, -1).result()
        del executor
        gc.collect()
        return True

    assert fork.run(child, end="exit") is True
    with executor:
        assert fork.run(executor.shutdown) is None
    assert fork.run(executor.shutdown) is None


def test_collected_and_shut_down_in_the_child(style: str) -> None:
    """No way of getting rid of it in the child waits for the parent's threads."""
    outcome = run(leaving, style)
    assert outcome.healthy, outcome
    assert "Traceback" not in outcome.output


def collectable(fork: Forker) -> None:
    import gc
    import threading
    import weakref
    from concurrent.futures import ThreadPoolExecutor

    class Argument:
        pass

    executor = ThreadPoolExecutor(1)
    begun, release = threading.Event(), threading.Event()

    def work(argument: Argument) -> None:
        begun.set()
        release.wait()

    argument = Argument()
    seen = weakref.ref(argument)
    future = executor.submit(work, argument)
    del argument
    begun.wait()
    fork.run(os.getpid)
    release.set()
    future.result()
    executor.submit(abs, -1).result()
    gc.collect()
    assert seen() is None
    thread = next(iter(executor._threads))
    del executor
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.skipif(PYPY, reason="PyPy lets go of an executor late: three collections are too few")
def test_the_parent_notices_nothing(style: str) -> None:
    """Looking at a thread's work keeps neither the work nor the executor alive."""
    outcome = run(collectable, style)
    assert outcome.healthy, outcome
