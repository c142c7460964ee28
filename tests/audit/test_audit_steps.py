"""What the steps of the reset tell: nothing is called fixed that the reset does not fix."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from fresh import hazards, value


def multiprocessing_state() -> Any:
    import multiprocessing
    from multiprocessing.shared_memory import SharedMemory

    import forksafe

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    queue.put(1)
    process = context.Process(target=queue.close, name="MyDaemon", daemon=True)
    memory = SharedMemory(create=True, size=8)
    stop = context.Event()
    process = context.Process(target=stop.wait, name="MyDaemon", daemon=True)
    process.start()
    try:
        return forksafe.audit()
    finally:
        stop.set()
        process.join()
        memory.close()
        memory.unlink()


def test_what_the_steps_handle_is_fixed() -> None:
    """Each step of the reset tells what it finds, and nothing of it needs action."""
    answer = hazards(multiprocessing_state)
    assert answer.one("queue").severity == "fixed"
    feeder = answer.one("thread", "QueueFeederThread")
    assert feeder.severity == "fixed"
    assert feeder.where == "multiprocessing.queues:Queue._feed"
    assert not answer.actions, answer


def pools_and_loops() -> Any:
    import asyncio
    import multiprocessing
    import signal
    import threading
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    import forksafe

    context = multiprocessing.get_context("fork")
    pool = context.Pool(1)
    threads = ThreadPoolExecutor(1, thread_name_prefix="mine")
    threads.submit(int).result()
    processes = ProcessPoolExecutor(1, mp_context=context)
    processes.submit(int).result()
    unused = ProcessPoolExecutor(1, mp_context=context)
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, int)
    other = asyncio.new_event_loop()
    running = threading.Event()
    other.call_soon_threadsafe(running.set)
    threading.Thread(target=other.run_forever, name="loop", daemon=True).start()
    running.wait()
    answer = forksafe.audit()
    assert unused
    processes.shutdown()
    pool.terminate()
    pool.join()
    return answer


def test_what_the_steps_for_pools_and_loops_tell() -> None:
    """A pool refuses work in the child, an executor of threads works; its threads follow suit."""
    answer = hazards(pools_and_loops)
    pool = answer.one("pool", "Pool")
    assert pool.severity == "action"
    assert pool.where.startswith("multiprocessing.pool:Pool, of process ")
    assert "in the child" in pool.remedy
    executors = {h.subject: h for h in answer.of("executor")}
    assert {name: h.severity for name, h in executors.items()} == {
        "ThreadPoolExecutor mine": "fixed",
        "ProcessPoolExecutor": "action",
    }
    assert sorted(h.severity for h in answer.of("event-loop")) == ["action", "fixed"]
    # Each thread is as the step that answers for it says, and the others need action.
    threads = {h.where.rpartition(":")[2]: h.severity for h in answer.of("thread")}
    assert threads == {
        "_worker": "fixed",
        "Queue._feed": "fixed",
        "_ExecutorManagerThread.run": "advice",
        "Pool._handle_workers": "advice",
        "Pool._handle_tasks": "advice",
        "Pool._handle_results": "advice",
        "BaseEventLoop.run_forever": "action",
    }


def finished(what: str, before: str) -> Any:
    import multiprocessing.pool
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    import forksafe

    context = multiprocessing.get_context("fork")
    thing: Any
    if what.endswith("Executor"):
        thing = (
            ThreadPoolExecutor(1)
            if what == "ThreadPoolExecutor"
            else ProcessPoolExecutor(1, mp_context=context)
        )
        thing.submit(int).result()
    else:
        thing = context.Pool(1) if what == "Pool" else multiprocessing.pool.ThreadPool(1)
        thing.apply(int)
    kinds = ("executor", "pool", "queue", "thread")
    if before:
        assert {h.kind for h in forksafe.audit()} >= {kinds["Executor" not in what], "thread"}
    if what.endswith("Executor"):
        thing.shutdown()
    else:
        thing.close()
        thing.join()
    answer = forksafe.audit()
    assert thing is not None
    return [h for h in answer if h.kind in kinds or h.severity == "action"]


@pytest.mark.parametrize("before", ["", "audited before"])
@pytest.mark.parametrize(
    "what", ["Pool", "ThreadPool", "ThreadPoolExecutor", "ProcessPoolExecutor"]
)
def test_what_has_come_to_its_end_is_not_told(what: str, before: str) -> None:
    """A pool that was closed and joined, an executor that was shut down; nor are their queues."""
    assert hazards(finished, what, before) == []


def unknown_layout() -> Any:
    import concurrent.futures.thread

    import forksafe

    concurrent.futures.thread._threads_queues = "of another Python"  # type: ignore[attr-defined]
    return forksafe.audit()


def test_a_layout_that_the_reset_does_not_know() -> None:
    """What the reset would leave alone, the audit does not call fixed."""
    found = hazards(unknown_layout).one("unknown")
    assert found.severity == "action"
    assert found.subject == "thread executors"
    assert "_threads_queues" in found.detail


def step_half_imported() -> Any:
    import importlib.machinery
    import types

    import forksafe

    name = "concurrent.futures.thread"
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__spec__._initializing = True  # type: ignore[attr-defined]
    sys.modules[name] = module
    answer = forksafe.audit()
    module.__spec__._initializing = False  # type: ignore[attr-defined]
    return [h.kind for found in (answer, forksafe.audit()) for h in found if h.kind != "memory"]


def test_a_module_of_a_step_that_is_half_imported() -> None:
    """It is not taken for one of an unknown Python: it has no state yet."""
    assert value(step_half_imported) == ["unknown"]


def order() -> Any:
    import sqlite3
    import tempfile
    import threading

    import forksafe

    file = tempfile.NamedTemporaryFile()
    database = sqlite3.connect(file.name)
    database.execute("CREATE TABLE t (x)")
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    # The database is open twice.
    return list(dict.fromkeys(h.kind for h in forksafe.audit() if h.severity == "action"))


def test_what_bites_most_often_comes_first() -> None:
    """The order of the kinds is that of the documentation."""
    assert value(order) == ["thread", "database", "temporary-file"]
