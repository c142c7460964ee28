"""Files, exit handlers, locks, memory, modules; and parts that fail."""

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


def odd_names() -> Any:
    import logging
    import pathlib
    import shutil
    import subprocess
    import tempfile
    import zipfile

    import forksafe

    handler = logging.FileHandler(f"{tempfile.mkdtemp()}/log")
    assert handler.stream is not None
    handler.stream.write("half a record")
    archive = zipfile.ZipFile(tempfile.TemporaryFile(), "w")
    archive.writestr("name", b"text")
    program = pathlib.Path(shutil.which("sleep") or "")
    with subprocess.Popen([program, "60"]) as process, subprocess.Popen(b"true") as other:
        answer = forksafe.audit()
        process.kill()
    assert other and archive
    return answer


def test_names_that_are_no_strings() -> None:
    """Of a process its path, of a file its descriptor; and a log's file is flushed by the fork."""
    found = hazards(odd_names)
    assert found.of("unknown") == []
    assert {h.subject.rpartition("/")[2] for h in found.of("child-process")} == {"sleep", "true"}
    assert [h.subject.partition(" ")[0] for h in found.of("open-file")] == ["(descriptor"]


def temporary() -> Any:
    import tempfile

    import forksafe

    file = tempfile.NamedTemporaryFile()
    with tempfile.NamedTemporaryFile():
        pass
    found = [h for h in forksafe.audit() if h.kind == "temporary-file"]
    return [[h.severity, h.subject == file.name] for h in found]


def test_temporary_files() -> None:
    """A file is deleted by a child that ends as a program does."""
    assert value(temporary) == [["action", True]]


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


@pytest.mark.skipif(not PYPY and sys.version_info < (3, 10), reason="3.9 does not list its locks")
def test_locks_that_are_held() -> None:
    """By their names; not those of this thread, nor what threads wait on by design."""
    answer = hazards(locks)
    found = {h.subject: h for h in answer.of("lock")}
    slots, plain = "program:locks.<locals>.Holder", "program:locks.<locals>.Plain.lock"
    assert set(found) == {"mine.plain", slots, plain}, answer
    assert {h.severity for h in found.values()} == {"action"}  # taken by acquire(): no proof
    assert "re-entrant lock" in found[slots].summary
    assert all("thread that is not known" in h.summary for h in found.values())
    assert all(h.where == h.subject and h.remedy for h in found.values())


def lock_of_a_handler() -> Any:
    import _strptime
    import logging
    import threading

    import forksafe

    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    taken, go = threading.Event(), threading.Event()

    def hold() -> None:
        handler.acquire()
        _strptime._cache_lock.acquire()
        taken.set()
        go.wait()

    threading.Thread(target=hold, daemon=True).start()
    taken.wait()
    return forksafe.audit(locks=True)


def test_locks_that_start_afresh() -> None:
    """Of logging's handlers, by Python itself; of the standard library's modules, by a step."""
    found = {h.subject: h.severity for h in hazards(lock_of_a_handler).of("lock")}
    assert found == {"logging:Handler.lock": "fixed", "_strptime._cache_lock": "fixed"}


LOCK: Any = None


def proven(free_locks: str) -> Any:
    import threading

    import forksafe

    global LOCK
    LOCK = threading.Lock()
    taken, go = threading.Event(), threading.Event()

    class Cache:
        def __init__(self) -> None:
            self.changed = threading.Condition()

        def hold(self) -> None:
            with LOCK, self.changed:
                taken.set()
                go.wait()

    cache = Cache()
    threading.Thread(target=cache.hold, name="holder", daemon=True).start()
    taken.wait()
    sys.modules["program"] = type(sys)("program")
    sys.modules["program"].LOCK = LOCK  # type: ignore[attr-defined]
    forksafe.install(free_locks=bool(free_locks))
    mine = threading.Lock()
    sys.modules["program"].mine = mine  # type: ignore[attr-defined]
    with mine:
        return forksafe.audit(locks=True)


@pytest.mark.skipif(PYPY, reason="there no holder is proven: stacks cannot be read")
@pytest.mark.parametrize(("free_locks", "severity"), [("yes", "fixed"), ("", "action")])
def test_a_lock_whose_holder_is_proven(free_locks: str, severity: str) -> None:
    """Which thread has it, and at which line; the child's is free, unless that was turned off.

    A lock that the auditing thread has itself is not told.
    """
    found = {h.subject: h for h in hazards(proven, free_locks).of("lock")}
    condition = "threading:Condition._lock"
    assert set(found) == {"program.LOCK", condition}
    for hazard in found.values():
        assert hazard.severity == severity
        assert "is held by thread 'holder' at " in hazard.summary
        assert "test_audit_rest.py:" in hazard.summary
    assert found[condition].summary.startswith("the re-entrant lock ")


def memory() -> Any:
    import forksafe

    return forksafe.audit()


def test_memory() -> None:
    """Advice only."""
    found = hazards(memory).one("memory")
    assert found.severity == "advice"
    assert "MiB" in found.summary or not LINUX
    assert PYPY or "gc.freeze()" in found.remedy


def modules(support: str) -> Any:
    import os
    import types

    import forksafe

    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = support

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
    answer = hazards(modules, "0")
    found = {h.subject: h for h in answer.of("module")}
    assert set(found) == {"grpc", "polars"}
    assert found["grpc"].severity == "advice"
    assert "GRPC_ENABLE_FORK_SUPPORT=0" in found["grpc"].detail
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in found["grpc"].remedy


def test_a_module_that_the_environment_has_prepared_is_not_told() -> None:
    """Its advice would be to set what is set."""
    assert [h.subject for h in hazards(modules, "True").of("module")] == ["polars"]


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


@pytest.mark.parametrize(
    ("part", "name"),
    [("_threads", "threads"), ("_descriptors", "descriptors"), ("_runtime", "the rest")],
)
def test_a_part_that_fails_is_told(part: str, name: str) -> None:
    """A hole in the answer is part of the answer; the other parts go on."""
    answer = hazards(broken_part, part)
    found = answer.one("unknown")
    assert found.severity == "advice"
    assert found.subject == name
    assert "KeyError" in found.detail
    kinds = {hazard.kind for hazard in answer}
    expected = {"thread", "socket", "exit-handlers", "unknown"}
    assert kinds >= expected - {"thread" if part == "_threads" else ""} - (
        {"socket"} if part == "_descriptors" else set()
    ) - ({"exit-handlers"} if part == "_runtime" else set())


def broken_part(part: str) -> Any:
    import atexit
    import importlib
    import socket
    import threading

    import forksafe

    def find(scene: object) -> Any:
        raise KeyError("broken")

    ends = socket.socketpair()
    atexit.register(len, ends)
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    forksafe.audit()
    importlib.import_module(f"forksafe._audit.{part}").find = find  # type: ignore[attr-defined]
    return forksafe.audit()


def garbage(part: str) -> Any:
    import gc
    import importlib
    import socket
    import threading

    import forksafe

    def find(scene: object) -> Any:
        raise KeyError("broken")

    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    forksafe.audit(locks=True)
    if part:
        importlib.import_module(f"forksafe._audit.{part}").find = find  # type: ignore[attr-defined]
    gc.collect()
    gc.disable()
    forksafe.audit(locks=True)
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    assert client
    return sorted({type(thing).__name__ for thing in gc.garbage} & {"Scene", "socket", "frame"})


@pytest.mark.skipif(PYPY, reason="PyPy counts no references")
@pytest.mark.parametrize("part", ["", "_threads"])
def test_it_keeps_nothing(part: str) -> None:
    """A connection that the program lets go of is closed at once, whether it was audited or not."""
    assert value(garbage, part) == []
