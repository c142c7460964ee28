"""Row 10: an inherited process or thread pool fails at once in the child, and says why."""

from __future__ import annotations

import importlib
import os
from typing import Any, Callable

import pytest
from harness import PYPY, Forker, raising, run, run_plain

KINDS = ("Pool", "ThreadPool")


def make_pool(family: str, kind: str, workers: int = 1) -> Any:
    """Return a running pool of `family` that forks its workers."""
    package = importlib.import_module(family)
    if kind == "ThreadPool":
        return importlib.import_module(f"{family}.pool").ThreadPool(workers)
    return package.get_context("fork").Pool(workers)


def refusals(pool: Any, owner: int) -> int:
    """Submit in every way there is; return how often it was refused with the reason."""
    ways: list[Callable[[], object]] = [
        lambda: pool.apply(abs, (-1,)),
        lambda: pool.apply_async(abs, (-1,)),
        lambda: pool.map(abs, [-1, -2]),
        lambda: pool.map(abs, []),
        lambda: pool.map_async(abs, [-1]),
        lambda: pool.starmap(max, [(1, 2)]),
        lambda: pool.starmap_async(max, [(1, 2)]),
        lambda: pool.imap(abs, [-1]),
        lambda: pool.imap(abs, [-1, -2, -3], 2),
        lambda: pool.imap_unordered(abs, [-1]),
        lambda: pool.imap_unordered(abs, [-1, -2, -3], 2),
    ]
    reason = f"belongs to process {owner}.* create a pool in this child"
    for way in ways:
        with raising(ValueError, match=reason):
            way()
    return len(ways)


def program(fork: Forker) -> None:
    family = os.environ.get("FAMILY", "multiprocessing")
    pool = make_pool(family, os.environ["KIND"], 2)
    assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
    workers = [getattr(worker, "pid", None) for worker in pool._pool]
    owner = os.getpid()

    def refuse() -> int:
        return refusals(pool, owner)

    def let_go() -> bool:
        pool.close()
        pool.join()
        pool.terminate()
        pool.join()
        return True

    def block() -> int:
        with pool:
            return refusals(pool, owner)

    def collect() -> bool:
        nonlocal pool
        del pool
        import gc

        gc.collect()
        return True

    assert fork.run(refuse) == 11
    assert fork.run(let_go) is True
    assert fork.run(block) == 11
    assert fork.run(collect) is True
    # The parent's works on, with the workers that it had.
    assert pool.map(abs, [-4, -5]) == [4, 5]
    assert workers == [getattr(worker, "pid", None) for worker in pool._pool]
    pool.close()
    pool.join()


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_at_once(kind: str, style: str) -> None:
    """Every submitting method raises; every way of letting go returns; the parent works on."""
    outcome = run(program, style, env={"KIND": kind}, options=("-X", "dev"))
    assert outcome.healthy, outcome
    assert "unclosed running" not in outcome.output, outcome
    assert "Traceback" not in outcome.output, outcome


# billiard's own ThreadPool cannot even be made: its queues have no _writer.
@pytest.mark.parametrize(
    ("family", "kind"),
    [("multiprocess", "Pool"), ("multiprocess", "ThreadPool"), ("billiard", "Pool")],
)
@pytest.mark.skipif(PYPY, reason="multiprocess and billiard are not installed on PyPy")
def test_families(family: str, kind: str, style: str) -> None:
    """The pools of multiprocess and billiard, where they are loaded."""
    pytest.importorskip(family)
    outcome = run(program, style, env={"KIND": kind, "FAMILY": family})
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_hangs_without(kind: str, style: str) -> None:
    """The child waits for threads that it does not have."""
    outcome = run_plain(program, style, env={"KIND": kind})
    assert outcome.shows("hung"), outcome


def terminated(fork: Forker) -> None:
    pool = make_pool("multiprocessing", "Pool")
    (worker,) = pool._pool
    assert pool.apply(abs, (-1,)) == 1

    def child() -> bool:
        with pool:
            pass
        return True

    assert fork.run(child) is True
    assert worker.exitcode is None, "the child ended the parent's worker"
    assert pool._pool == [worker], "the parent has another worker"
    assert pool.apply(os.getpid) == worker.pid
    pool.terminate()


def test_the_childs_with_block_signals_nobody(style: str) -> None:
    """The parent's worker is alive, and the same."""
    outcome = run(terminated, style)
    assert outcome.healthy, outcome


def test_the_childs_with_block_breaks_without() -> None:
    """It sends SIGTERM to the parent's worker, and waits for ever, or cannot wait for it."""
    outcome = run_plain(terminated, "raw")
    assert outcome.shows("the child ended the parent's worker", "hung"), outcome


def due(fork: Forker) -> None:
    import threading

    pool = make_pool("multiprocessing", "ThreadPool")
    begun, release = threading.Event(), threading.Event()

    def work(number: int) -> int:
        begun.set()
        release.wait()
        return number

    called: list[int] = []
    single = pool.apply_async(work, (1,), callback=called.append)
    several = pool.map_async(work, [2, 3])
    lazily = pool.imap(work, [4, 5])
    done = make_pool("multiprocessing", "ThreadPool").apply_async(abs, (-9,))
    assert done.get() == 9
    begun.wait()

    def child() -> list[str]:
        lost = []
        for wait in (single.get, several.get, lazily.next):
            try:
                wait()
            except ValueError as exc:
                lost.append(str(exc))
        assert list(lazily) == []
        assert single.ready() and not single.successful()
        assert done.get() == 9
        assert called == []
        return lost

    lost = fork.run(child)
    assert len(lost) == 3
    assert all("is lost" in text and str(os.getpid()) in text for text in lost)
    release.set()
    assert (single.get(), several.get(), list(lazily)) == (1, [2, 3], [4, 5])
    assert called == [1]
    pool.terminate()


def test_results_that_were_due_raise(style: str) -> None:
    """Nobody in the child waits for the parent's workers."""
    outcome = run(due, style)
    assert outcome.healthy, outcome


def due_from_billiard(fork: Forker) -> None:
    read, write = os.pipe()
    pool = make_pool("billiard", "Pool")
    single = pool.apply_async(os.read, (read, 1))
    several = pool.map_async(abs, [-2, -3])
    lazily = pool.imap(abs, [-4, -5])

    def child() -> list[str]:
        lost = []
        for wait in (single.get, several.get, lazily.next):
            # billiard's iterators raise a ValueError since 4.3, before that a plain Exception.
            with raising(Exception, match="is lost") as caught:
                wait()
            lost.append(str(caught[0]))
        return lost

    lost = fork.run(child)
    assert len(lost) == 3
    assert all(f"belongs to process {os.getpid()}" in text for text in lost)
    os.write(write, b"x")
    assert (single.get(), several.get(), list(lazily)) == (b"x", [2, 3], [4, 5])
    pool.terminate()


@pytest.mark.skipif(PYPY, reason="billiard is not installed on PyPy")
def test_results_of_billiard_raise(style: str) -> None:
    """Results of billiard wrap what they raise."""
    pytest.importorskip("billiard")
    outcome = run(due_from_billiard, style)
    assert outcome.healthy, outcome


def renewed(fork: Forker) -> None:
    from multiprocessing import get_context

    # Each task ends its worker, so that the pool's own thread forks while the hook is on.
    with get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        pids = [pool.apply(os.getpid) for _ in range(8)]
        assert fork.run(os.getpid)
        pids += [pool.apply(os.getpid) for _ in range(8)]
    assert len(set(pids)) == 16


def test_a_pools_own_forks(style: str) -> None:
    """The workers that a pool's thread forks later on are workers, not strangers."""
    outcome = run(renewed, style)
    assert outcome.healthy, outcome


def own_pool(fork: Forker) -> None:
    inherited = make_pool("multiprocessing", "Pool")
    inherited.apply(abs, (-1,))

    def child() -> list[int]:
        with make_pool("multiprocessing", "Pool", 2) as pool:
            mine = os.getpid()
            assert fork.run(lambda: refusals(pool, mine), end="_exit") == 11
            mapped: list[int] = pool.map(abs, [-1, -2])
            return mapped

    # A pool's workers are daemons; a daemonic Process may have no children, but this is none.
    assert fork.run(child, end="_exit") == [1, 2]
    assert inherited.apply(abs, (-2,)) == 2
    inherited.terminate()


def test_the_remedy_works(style: str) -> None:
    """A pool made in the child works there, and is refused in the child's child."""
    outcome = run(own_pool, style)
    assert outcome.healthy, outcome


# ProcessPoolExecutor


def executor_program(fork: Forker) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    executor = ProcessPoolExecutor(2, mp_context=get_context("fork"))
    assert list(executor.map(abs, [-1, -2, -3])) == [1, 2, 3]
    workers = sorted(executor._processes)
    owner = os.getpid()
    readable = executor._executor_manager_thread_wakeup._reader

    def refuse() -> int:
        ways: list[Callable[[], object]] = [
            lambda: executor.submit(abs, -1),
            lambda: executor.map(abs, [-1, -2]),
            lambda: executor.map(abs, [-1, -2, -3], chunksize=2),
        ]
        reason = f"belong to process {owner}.* create a ProcessPoolExecutor in this child"
        for way in ways:
            with raising(BrokenProcessPool, match=reason):
                way()
        return len(ways)

    def let_go() -> bool:
        executor.shutdown()
        executor.shutdown(wait=False, cancel_futures=True)
        return True

    def block() -> int:
        with executor:
            return refuse()

    def kill() -> bool:
        for name in ("terminate_workers", "kill_workers"):
            getattr(executor, name, executor.shutdown)()  # of 3.14
        return True

    def collect() -> bool:
        nonlocal executor
        del executor
        import gc

        gc.collect()
        return True

    assert fork.run(refuse) == 3
    assert fork.run(let_go) is True
    assert fork.run(block) == 3
    assert fork.run(kill) is True
    assert fork.run(collect) is True
    assert list(executor.map(abs, [-4, -5])) == [4, 5]
    assert workers == sorted(executor._processes)
    executor.shutdown()
    assert readable.closed


def test_executor_refuses_at_once(style: str) -> None:
    """submit() and map() raise; every way of letting go returns; the parent works on."""
    outcome = run(executor_program, style)
    assert outcome.healthy, outcome
    assert "Traceback" not in outcome.output, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_executor_breaks_without(style: str) -> None:
    """The child's work is never done."""
    outcome = run_plain(executor_program, style)
    assert outcome.shows("BrokenProcessPool was not raised", "hung"), outcome


def quiet(fork: Forker) -> None:
    import threading
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    executor = ProcessPoolExecutor(1, mp_context=get_context("fork"))
    executor.submit(abs, -1).result()
    wakeup: Any = executor._executor_manager_thread_wakeup
    # The parent's thread is kept from reading what would arrive: it waits at this lock.
    inside, go_on = threading.Event(), threading.Event()
    clear = wakeup.clear

    def waiting_clear() -> None:
        inside.set()
        go_on.wait()
        clear()

    wakeup.clear = waiting_clear
    wakeup.wakeup()
    inside.wait()
    assert wakeup._reader.poll(10)
    wakeup._reader.recv_bytes()  # its own wakeup
    assert not wakeup._reader.poll(0)

    def child() -> bool:
        nonlocal executor
        executor.shutdown()
        del executor
        return True

    assert fork.run(child) is True  # with all that a child does at its exit
    assert fork.run(lambda: True) is True
    assert not wakeup._reader.poll(0), "the child has written to the parent's thread"
    go_on.set()
    assert executor.submit(abs, -2).result() == 2
    executor.shutdown()


def test_executor_child_writes_nothing_to_the_parent(style: str) -> None:
    """Neither shutdown(), nor collecting it, nor the child's exit wakes the parent's thread."""
    outcome = run(quiet, style)
    assert outcome.healthy, outcome


def test_executor_child_writes_without() -> None:
    """shutdown() in the child wakes the parent's thread up."""
    outcome = run_plain(quiet, "raw")
    assert outcome.shows("the child has written to the parent's thread", "hung"), outcome


def executor_due(fork: Forker) -> None:
    from concurrent.futures import ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    import test_10_pools as importable

    context = get_context("fork")
    release = context.Event()
    executor = ProcessPoolExecutor(
        1, mp_context=context, initializer=importable.keep, initargs=(release,)
    )
    futures = [executor.submit(importable.wait_for_it) for _ in range(5)]

    def child() -> int:
        assert not wait(futures).not_done
        return sum(isinstance(future.exception(), BrokenProcessPool) for future in futures)

    assert fork.run(child) == 5
    release.set()
    assert [future.result() for future in futures] == [True] * 5
    executor.shutdown()


_kept: list[Any] = []


def keep(event: Any) -> None:
    _kept.append(event)


def wait_for_it() -> bool:
    return bool(_kept[-1].wait(30))


def test_executor_futures_that_were_due_raise(style: str) -> None:
    """Nobody in the child waits for the parent's workers."""
    outcome = run(executor_due, style)
    assert outcome.healthy, outcome


def never_started(fork: Forker) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    executor = ProcessPoolExecutor(2, mp_context=get_context("fork"))
    read, write = os.pipe()

    def use(count: int) -> bool:
        os.read(read, 1)  # all at once
        for number in range(count):
            mine = executor.submit(os.getppid).result()
            assert mine == os.getpid(), "a result of another process's work"
            assert list(executor.map(abs, range(-number, 0))) == list(range(number, 0, -1))
        executor.shutdown()
        return True

    children = [fork(use, 20) for _ in range(3)]
    assert fork.run(executor.shutdown) is None  # before any use
    os.write(write, b"xxx")
    for child in children:
        assert child.result(30) is True
    for child in children:
        assert child.join() == 0
    assert executor.submit(os.getppid).result() == os.getpid()
    executor.shutdown()


def test_executor_that_never_started_works_in_each_child(style: str) -> None:
    """A preloaded one: each child has its own workers, and gets its own results."""
    outcome = run(never_started, style, timeout=60)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_executor_that_never_started_breaks_without(style: str) -> None:
    """The children take work and results from each other's pipes."""
    outcome = run_plain(never_started, style)
    broken = ("a result of another process's work", "'work_id'", "terminated abruptly", "hung")
    assert outcome.shows(*broken), outcome


def spawning(fork: Forker) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    later = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    assert executor.submit(abs, -1).result() == 1

    def child() -> int:
        with raising(BrokenProcessPool):
            executor.submit(abs, -1)
        executor.shutdown()
        value = later.submit(abs, -2).result()
        later.shutdown()
        return value

    assert fork.run(child) == 2
    assert executor.submit(abs, -3).result() == 3
    executor.shutdown()
    later.shutdown()


@pytest.mark.skipif(PYPY, reason="PyPy 3.9's own executor cannot spawn: no _adjust_process_count")
def test_executor_with_the_spawn_method(style: str) -> None:
    """The same for workers that are started afresh."""
    outcome = run(spawning, style, timeout=60)
    assert outcome.healthy, outcome
