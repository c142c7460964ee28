"""Files, exit handlers, locks, memory, modules, and what the steps of the reset tell."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from fresh import LINUX, PYPY, hazards, value


def files() -> Any:
    import tempfile

    import forksafe

    path = tempfile.mkdtemp()
    text = open(f"{path}/text", "w")
    text.write("five5")
    binary = open(f"{path}/binary", "wb")
    binary.write(b"seven77")
    flushed = open(f"{path}/flushed", "w")
    flushed.write("x")
    flushed.flush()
    reading = open(f"{path}/flushed")
    reading.read(1)
    answer = forksafe.audit()
    text.close()
    assert open(f"{path}/text").read() == "five5"
    assert binary and flushed and reading
    return answer


def test_files_with_data_not_yet_written() -> None:
    """How much waits, and where; a file that is flushed, or read, is none."""
    found = {h.subject.rpartition("/")[2]: h for h in hazards(files).of("open-file")}
    assert set(found) == ({"binary"} if PYPY else {"text", "binary"})
    assert found["binary"].summary.startswith("7 ")
    for hazard in found.values():
        assert hazard.severity == "action"
        assert "flush()" in hazard.remedy
        assert hazard.where.startswith("fd ")


def temporary() -> Any:
    import tempfile

    import forksafe

    directory = tempfile.TemporaryDirectory()
    file = tempfile.NamedTemporaryFile()
    with tempfile.NamedTemporaryFile():
        pass
    with tempfile.TemporaryDirectory():
        pass
    answer = forksafe.audit()
    names = [directory.name, file.name]
    return [[h.kind, h.severity, names.index(h.subject)] for h in answer if "temporary" in h.kind]


def test_temporary_directories_and_files() -> None:
    """The step keeps directories; a file is deleted by a child that ends as a program does."""
    assert sorted(value(temporary)) == [
        ["temporary-directory", "fixed", 0],
        ["temporary-file", "action", 1],
    ]


def exit_handlers() -> Any:
    import atexit
    import functools
    import logging
    import multiprocessing.util
    import shutil
    import weakref

    import forksafe

    assert logging and multiprocessing.util  # which have handlers of their own
    order: list[int] = []
    atexit.register(order.append, 1)
    atexit.register(functools.partial(shutil.rmtree, "/nowhere", True))
    weakref.finalize(forksafe, shutil.copy, "a", "b")
    answer = forksafe.audit()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    assert order == [1], "a handler was lost"
    return answer


def test_exit_handlers() -> None:
    """Whose they are is told; looking at them unregisters none."""
    found = hazards(exit_handlers).one("exit-handlers")
    assert found.severity == "advice"
    assert found.summary.startswith("3 ")
    assert "shutil:rmtree" in found.where and "shutil:copy" in found.where
    assert "forked()" in found.remedy


def locks() -> Any:
    import _thread
    import threading
    import types

    import forksafe

    module = types.ModuleType("mine")
    module.plain = threading.Lock()  # type: ignore[attr-defined]
    module.free = threading.Lock()  # type: ignore[attr-defined]
    module.own = threading.RLock()  # type: ignore[attr-defined]
    module.own.acquire()

    class Holder:
        __slots__ = ("lock",)

    class Plain:
        pass

    module.holder = Holder()  # type: ignore[attr-defined]
    module.holder.lock = threading.RLock()
    module.deep = {"key": [Plain()]}  # type: ignore[attr-defined]
    module.deep["key"][0].lock = threading.Lock()
    module.idle = threading.Event()  # type: ignore[attr-defined]
    sys.modules["mine"] = module
    go = _thread.allocate_lock()
    go.acquire()

    def hold() -> None:
        module.plain.acquire()
        module.holder.lock.acquire()
        module.deep["key"][0].lock.acquire()
        go.release()
        module.idle.wait()

    threading.Thread(target=hold, daemon=True).start()
    go.acquire()
    assert not [h for h in forksafe.audit() if h.kind == "lock"], "not asked for"
    return forksafe.audit(locks=True)


def test_locks_that_are_held() -> None:
    """By their names; not those of this thread, nor what threads wait on by design."""
    answer = hazards(locks)
    found = {h.subject: h for h in answer.of("lock")}
    assert set(found) == {"mine.plain", "mine.holder.lock", "mine.deep['key'][0].lock"}, answer
    assert {h.severity for h in found.values()} == {"action"}
    assert all(h.where == h.subject and h.remedy for h in found.values())


def lock_of_a_handler() -> Any:
    import logging
    import threading

    import forksafe

    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    taken, go = threading.Event(), threading.Event()

    def hold() -> None:
        handler.acquire()
        taken.set()
        go.wait()

    threading.Thread(target=hold, daemon=True).start()
    taken.wait()
    return forksafe.audit(locks=True)


def test_locks_that_python_starts_afresh() -> None:
    """A logging handler's lock is mended by logging itself."""
    found = hazards(lock_of_a_handler).of("lock")
    assert [h.severity for h in found] == ["advice"], found
    assert found[0].subject.endswith(".lock")


def memory() -> Any:
    import forksafe

    return forksafe.audit()


def test_memory() -> None:
    """Advice only."""
    found = hazards(memory).one("memory")
    assert found.severity == "advice"
    assert "MiB" in found.summary or not LINUX
    assert PYPY or "gc.freeze()" in found.remedy


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
    child = answer.one("child-process")
    assert (child.severity, child.subject) == ("fixed", "MyDaemon")
    assert child.where.startswith("pid ")
    assert answer.one("queue").severity == "fixed"
    assert answer.one("shared-memory").severity == "fixed"
    assert answer.one("resource-tracker").severity == "fixed"
    assert answer.one("after-fork-callbacks").severity == "fixed"
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
        "ProcessPoolExecutor (not used yet)": "fixed",
    }
    assert sorted(h.severity for h in answer.of("event-loop")) == ["action", "fixed"]
    assert answer.one("wakeup-fd").severity == "fixed"
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


def fork_server() -> Any:
    import multiprocessing.forkserver

    import forksafe

    multiprocessing.forkserver.ensure_running()
    return forksafe.audit()


def test_a_forkserver() -> None:
    """The child starts one of its own."""
    answer = hazards(fork_server)
    found = answer.one("forkserver")
    assert found.severity == "fixed"
    assert found.subject == "multiprocessing.forkserver"
    assert found.where.startswith("pid ")
    assert not answer.actions, answer


def half_imported() -> Any:
    import pathlib
    import tempfile
    import threading

    import forksafe

    directory = tempfile.mkdtemp()
    code = "import sys; sys.started.set(); sys.go.wait()"
    pathlib.Path(directory, "half_imported_module.py").write_text(code)
    sys.path.insert(0, directory)
    sys.started, sys.go = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=__import__, args=("half_imported_module",), daemon=True).start()
    sys.started.wait()  # type: ignore[attr-defined]
    return forksafe.audit()


def test_a_module_that_another_thread_is_importing() -> None:
    """The child forgets the import."""
    found = hazards(half_imported).one("import")
    assert found.severity == "fixed"
    assert found.subject == found.where == "half_imported_module"


def unknown_layout() -> Any:
    import multiprocessing.process

    import forksafe

    multiprocessing.process._children = "of another Python"  # type: ignore[attr-defined]
    return forksafe.audit()


def test_a_layout_that_the_reset_does_not_know() -> None:
    """What the reset would leave alone, the audit does not call fixed."""
    found = hazards(unknown_layout).one("unknown")
    assert found.severity == "action"
    assert found.subject == "children"
    assert "_children" in found.detail


def modules() -> Any:
    import os
    import types

    import forksafe

    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "1"

    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"the audit has asked a lazy module for {name}")

    for name in ("grpc", "redis.connection", "torch.cuda", "polars", "psycopg_pool"):
        sys.modules[name] = Lazy(name)
    audit = forksafe.audit  # which imports the audit itself
    before = set(sys.modules)
    answer = audit()
    assert set(sys.modules) == before
    return answer


def test_known_modules_are_looked_up_and_never_woken() -> None:
    """Of grpc its environment is told; torch without CUDA initialised is not."""
    answer = hazards(modules)
    found = {h.subject: h for h in answer.of("module")}
    assert set(found) == {"grpc", "polars"}
    assert found["grpc"].severity == "advice"
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in found["grpc"].detail
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in found["grpc"].remedy


def cuda() -> Any:
    import types

    import forksafe

    module = types.ModuleType("torch.cuda")
    module._initialized = True  # type: ignore[attr-defined]
    sys.modules["torch.cuda"] = module
    return forksafe.audit()


def test_cuda_initialised() -> None:
    """The state is read off the loaded module's own flag, as torch.cuda.is_initialized() does."""
    found = hazards(cuda).one("module", "torch.cuda")
    assert found.severity == "action"
    assert "spawn" in found.remedy


@pytest.mark.parametrize("part", ["_threads", "_sockets", "_memory"])
def test_a_part_that_fails_is_told(part: str) -> None:
    """A hole in the answer is part of the answer; the other parts go on."""
    answer = hazards(broken_part, part)
    found = answer.one("unknown")
    assert found.severity == "advice"
    assert found.subject == part.strip("_")
    assert "KeyError" in found.detail
    assert len(answer) > 1 or part == "_memory"


def broken_part(part: str) -> Any:
    import importlib

    import forksafe

    def find(scene: object) -> Any:
        raise KeyError("broken")

    forksafe.audit()
    importlib.import_module(f"forksafe._audit.{part}").find = find  # type: ignore[attr-defined]
    return forksafe.audit()
