"""Things of a program that a fork breaks, each made between two forks: for test_every_order.py."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable

from harness import NEW_TRACKER, PYPY, READS_STACKS, Forker, raising
from witness import MIXED_REPLIES


class Thing:
    """Something of the program's, made between two forks."""

    step = ""  # the name of the step that mends it
    # What plain os.fork() shows.
    faults: tuple[str, ...] = ()

    def child(self) -> None:
        """In the child: assert that it is whole."""

    def meanwhile(self) -> None:
        """In the parent, beside the child."""

    def after(self) -> None:
        """In the parent, behind the child's end: assert that it is whole there."""


THINGS: dict[str, type[Thing]] = {}
STEPS_OF_THINGS: set[str] = set()


def thing(step: str, here: bool = True) -> Callable[[type[Thing]], type[Thing]]:
    """Keep a thing that `step` mends, if there is such a thing `here`."""

    def keep(cls: type[Thing]) -> type[Thing]:
        STEPS_OF_THINGS.add(step)
        cls.step = step
        if here:
            THINGS[cls.__name__] = cls
        return cls

    return keep


def in_another_thread(target: Callable[[], object]) -> None:
    import threading

    threading.Thread(target=target, daemon=True).start()


@thing("registry")
class ManagersProxy(Thing):
    faults = MIXED_REPLIES

    def __init__(self) -> None:
        from multiprocessing import get_context

        self.manager = get_context("fork").Manager()
        self.shared = self.manager.dict(parent=0, child=0)
        assert len(self.shared) == 2

    def count(self, key: str) -> None:
        for number in range(200):
            self.shared[key] = number
            assert self.shared[key] == number, "a reply to the other"

    def child(self) -> None:
        self.count("child")

    def meanwhile(self) -> None:
        self.count("parent")


@thing("registry")
class Queue(Thing):
    faults = ("Empty",)

    def __init__(self) -> None:
        from multiprocessing import get_context

        self.queue = get_context("fork").Queue()
        self.queue.put("by the parent")
        assert self.queue.get(timeout=5) == "by the parent"

    def child(self) -> None:
        self.queue.put("by the child")

    def after(self) -> None:
        assert self.queue.get(timeout=2) == "by the child"


@thing("registry")
class Callback(Thing):
    faults = ("the callback ran []",)

    def __init__(self) -> None:
        from multiprocessing.util import register_after_fork

        self.calls: list[int] = []
        register_after_fork(self, lambda self: self.calls.append(os.getpid()))

    def child(self) -> None:
        assert self.calls == [os.getpid()], f"the callback ran {self.calls}"

    def after(self) -> None:
        assert self.calls == []


@thing("registry")
class Finalizer(Thing):
    faults = ("the parent's finalizer is active in the child",)

    def __init__(self) -> None:
        from multiprocessing.util import Finalize

        self.finalizer = Finalize(self, abs, args=(1,))

    def child(self) -> None:
        assert not self.finalizer.still_active(), "the parent's finalizer is active in the child"

    def after(self) -> None:
        assert self.finalizer.still_active()


@thing("children")
class DaemonProcess(Thing):
    faults = ("the child lists its parent's children", "can only join a child process")

    def __init__(self) -> None:
        import time
        from multiprocessing import get_context

        self.process = get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        self.process.start()

    def child(self) -> None:
        from multiprocessing import active_children

        assert not active_children(), "the child lists its parent's children"

    def after(self) -> None:
        assert self.process.is_alive(), "the child ended its parent's daemon"


class _Executor(Thing):
    def __init__(self) -> None:
        self.pool = self.make()
        assert self.use() == 1

    def make(self) -> Any:
        raise NotImplementedError

    def use(self) -> Any:
        return self.pool.submit(abs, -1).result(3)

    def after(self) -> None:
        assert self.use() == 1


@thing("identity")
class ParentProcess(Thing):
    """What `parent_process()` tells, as in a program that is itself a child of a ``Process``."""

    faults = ("the child takes its grandparent for its parent",)

    def __init__(self) -> None:
        process: Any = __import__("multiprocessing.process").process
        process._parent_process = process._ParentProcess("the grandparent", os.getppid(), None)
        self.parent_process: Callable[[], Any] = process.parent_process

    def child(self) -> None:
        told = self.parent_process().pid
        assert told == os.getppid(), "the child takes its grandparent for its parent"

    def after(self) -> None:
        assert self.parent_process().name == "the grandparent"


@thing("scratch directory")
class ScratchDirectory(Thing):
    faults = ("the child has its parent's directory",)

    def __init__(self) -> None:
        from multiprocessing.util import get_temp_dir

        self.path = get_temp_dir()

    def child(self) -> None:
        from multiprocessing import current_process
        from multiprocessing.util import get_temp_dir

        # A Process may have it: its parent waits for it.
        if not current_process().name.startswith("ForkProcess-"):
            assert get_temp_dir() != self.path, "the child has its parent's directory"

    def after(self) -> None:
        assert os.path.isdir(self.path)


@thing("watchdog", here=not PYPY)
class Watchdog(Thing):
    faults = ("hung",)

    def __init__(self) -> None:
        import faulthandler

        faulthandler.dump_traceback_later(600)


@thing("thread pools")
class ThreadExecutor(_Executor):
    faults = ("TimeoutError", "hung")

    def make(self) -> Any:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(1)

    def child(self) -> None:
        assert self.use() == 1


@thing("process executors")
class ProcessExecutor(_Executor):
    faults = ("TimeoutError", "BrokenProcessPool was not raised", "hung")

    def make(self) -> Any:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        return ProcessPoolExecutor(1, mp_context=get_context("fork"))

    def child(self) -> None:
        from concurrent.futures.process import BrokenProcessPool

        with raising(BrokenProcessPool, "create a ProcessPoolExecutor in this child"):
            self.use()


@thing("pools")
class Pool(_Executor):
    faults = ("TimeoutError", "hung")

    def make(self) -> Any:
        from multiprocessing import get_context

        return get_context("fork").Pool(1)

    def use(self) -> Any:
        return self.pool.apply_async(abs, (-1,)).get(3)

    def child(self) -> None:
        with raising(ValueError, "create a pool in this child"):
            self.use()


@thing("pools")
class ThreadPool(Pool):
    def make(self) -> Any:
        from multiprocessing.pool import ThreadPool

        return ThreadPool(1)


@thing("temporary directories")
class Directory(Thing):
    faults = ("the child deleted it",)

    def __init__(self) -> None:
        import tempfile

        self.directory = tempfile.TemporaryDirectory()

    def after(self) -> None:
        assert os.path.isdir(self.directory.name), "the child deleted it"


@thing("exit handlers")
class File(Thing):
    """A named temporary file: what `forked()` keeps, and the others by intention do not."""

    faults = () if PYPY else ("the child deleted it",)  # PyPy collects nothing at its exit

    def __init__(self) -> None:
        import tempfile

        self.file = tempfile.NamedTemporaryFile()

    def after(self) -> None:
        assert os.path.exists(self.file.name), "the child deleted it"


class _Lines(Thing):
    """A file that processes write lines to."""

    def __init__(self) -> None:
        import tempfile

        fd, self.path = tempfile.mkstemp()
        os.close(fd)
        self.open()
        self.fill()

    def open(self) -> None:
        """Make something that writes to it."""

    def fill(self) -> None:
        """Write a line that comes no further than a buffer."""

    def flush(self) -> None:
        """Have it written."""

    def after(self) -> None:
        self.flush()
        with open(self.path) as file:
            lines = file.read().split("\n")[:-1]
        assert sorted(lines) == ["by the child", "by the parent"], f"in the file: {lines}"
        os.truncate(self.path, 0)
        self.fill()  # for another fork


@thing("std streams")
class LogFile(_Lines):
    """A handler whose stream has text in its buffer, as a busy one's has at times."""

    faults = ("in the file: ['by the parent', 'by the child', 'by the parent']",)

    def open(self) -> None:
        import logging

        self.handler = logging.FileHandler(self.path)
        self.logger = logging.getLogger("the program's")
        self.logger.addHandler(self.handler)

    def fill(self) -> None:
        stream: Any = self.handler.stream
        stream.write("by the parent\n")

    def flush(self) -> None:
        self.handler.flush()

    def child(self) -> None:
        self.logger.warning("by the child")


@thing("log handlers")
class PendingRecord(_Lines):
    """A record that waits in a `MemoryHandler`."""

    faults = ("in the file: ['by the parent', 'by the child', 'by the parent']",)

    def open(self) -> None:
        import logging.handlers

        target = logging.FileHandler(self.path)
        self.handler = logging.handlers.MemoryHandler(100, target=target)

    def emit(self, message: str) -> None:
        import logging

        self.handler.emit(logging.makeLogRecord({"msg": message, "levelno": logging.INFO}))

    def fill(self) -> None:
        self.emit("by the parent")

    def flush(self) -> None:
        self.handler.flush()

    def child(self) -> None:
        self.emit("by the child")
        self.handler.flush()


@thing("std streams")
class Printed(_Lines):
    """Text that waits in the buffer of stdout, which is a file."""

    faults = ("in the file: ['by the parent', 'by the child', 'by the parent']",)

    def open(self) -> None:
        sys.stdout.flush()
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.dup2(fd, 1)
        os.close(fd)

    def fill(self) -> None:
        print("by the parent")

    def flush(self) -> None:
        sys.stdout.flush()

    def child(self) -> None:
        print("by the child")
        sys.stdout.flush()  # `forked()` writes nothing of the parent's streams at its end


@thing("std streams")
class FullPipe(Thing):
    """Text that waits in the buffer of a handler's stream, and cannot be written at the fork."""

    faults = ("the child has what its parent wrote",)

    def __init__(self) -> None:
        import logging

        self.written = b""
        self.read, self.write = os.pipe()
        self.stream = open(self.write, "w")
        logging.getLogger("of a pipe").addHandler(logging.StreamHandler(self.stream))
        os.set_blocking(self.write, False)
        with raising(BlockingIOError):
            while True:
                os.write(self.write, bytes(65536))
        os.set_blocking(self.write, True)
        self.stream.write("by the parent\n")

    def child(self) -> None:
        import tempfile

        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), self.write)
            self.stream.flush()
            assert os.fstat(self.write).st_size == 0, "the child has what its parent wrote"

    def meanwhile(self) -> None:
        if not self.written:
            os.read(self.read, 1 << 20)
            self.stream.flush()
            self.written = os.read(self.read, 100)

    def after(self) -> None:
        assert self.written == b"by the parent\n"


@thing("event loops")
class EventLoop(Thing):
    faults = ("hung", "the parent's loop is deaf")

    def __init__(self) -> None:
        import asyncio

        self.loop = asyncio.new_event_loop()
        self.read, self.write = os.pipe()
        self.loop.add_reader(self.read, self.loop.stop)

    def child(self) -> None:
        self.loop.remove_reader(self.read)

    def after(self) -> None:
        handle = self.loop.call_later(2, self.loop.stop)
        os.write(self.write, b"x")
        self.loop.run_forever()
        in_time = self.loop.time() < handle.when()
        handle.cancel()
        os.read(self.read, 1)
        assert in_time, "the parent's loop is deaf"


@thing("wakeup fd")
class WakeupDescriptor(Thing):
    faults = ("the child has the parent's wakeup descriptor",)

    def __init__(self) -> None:
        import signal
        import socket

        self.here, self.there = socket.socketpair()
        self.there.setblocking(False)
        signal.set_wakeup_fd(self.there.fileno())

    def child(self) -> None:
        import signal

        number = signal.set_wakeup_fd(-1)
        assert number == -1, "the child has the parent's wakeup descriptor"

    def after(self) -> None:
        import signal

        number = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(number)
        assert number == self.there.fileno()


@thing("imports")
class HalfImport(Thing):
    """Another thread is in the middle of importing a module."""

    faults = ("hung",)

    def __init__(self) -> None:
        import tempfile
        import threading

        folder = tempfile.mkdtemp()
        sys.path.append(folder)
        with open(os.path.join(folder, "half.py"), "w") as file:
            file.write("import __main__\n__main__.half_import()\nwhole = True\n")
        there = threading.Event()

        def stop_once() -> None:
            main.half_import = lambda: None
            there.set()
            threading.Event().wait()

        main: Any = sys.modules["__main__"]
        main.half_import = stop_once
        in_another_thread(lambda: __import__("half"))
        there.wait()

    def child(self) -> None:
        assert __import__("half").whole


@thing("forkserver")
class ForkServer(Thing):
    faults = ("ChildProcessError",)

    def __init__(self) -> None:
        from multiprocessing import get_context

        self.context = get_context("forkserver")
        self.child()

    def child(self) -> None:
        process = self.context.Process(target=sys.exit, args=(3,))
        process.start()
        process.join(10)
        assert process.exitcode == 3

    def after(self) -> None:
        self.child()


@thing("resource tracker")
class Tracker(Thing):
    """Another thread is inside the resource tracker."""

    faults = () if NEW_TRACKER else ("hung",)

    def __init__(self) -> None:
        import threading
        from multiprocessing import resource_tracker

        self.tracker: Any = resource_tracker._resource_tracker
        self.tracker.ensure_running()
        held, self.release = threading.Event(), threading.Event()

        def hold() -> None:
            with self.tracker._lock:
                held.set()
                self.release.wait()

        in_another_thread(hold)
        held.wait()

    def child(self) -> None:
        self.tracker.ensure_running()

    def meanwhile(self) -> None:
        self.release.set()  # others need it in the parent


@thing("conditions")
class Waiter(Thing):
    """Another thread waits in a `Condition`, and would be notified instead of a thread that is."""

    faults = ("nobody was notified",)

    def __init__(self) -> None:
        import threading

        self.condition = threading.Condition()
        in_another_thread(self.wait)
        self.until_they_wait(1)

    def wait(self, timeout: float | None = None) -> bool:
        with self.condition:
            return self.condition.wait(timeout)

    def until_they_wait(self, threads: int) -> None:
        import time

        while True:
            with self.condition:
                if len(self.condition._waiters) >= threads:  # type: ignore[attr-defined] # private
                    return
            time.sleep(0.001)

    def child(self) -> None:
        import threading

        notified: list[bool] = []
        before = len(self.condition._waiters)  # type: ignore[attr-defined] # private
        thread = threading.Thread(target=lambda: notified.append(self.wait(2)))
        thread.start()
        self.until_they_wait(before + 1)
        with self.condition:
            self.condition.notify()
        thread.join()
        assert notified == [True], "nobody was notified"


@thing("locks", here=READS_STACKS)
class Lock(Thing):
    """Another thread is inside ``with lock:``."""

    faults = ("nobody releases it",)

    def __init__(self) -> None:
        import threading

        self.lock = threading.Lock()
        held = threading.Event()

        def hold() -> None:
            with self.lock:
                held.set()
                threading.Event().wait()

        in_another_thread(hold)
        held.wait()

    def child(self) -> None:
        assert self.lock.acquire(timeout=2), "nobody releases it"

    def after(self) -> None:
        assert not self.lock.acquire(blocking=False)


@thing("locks")
class ModulesLock(Thing):
    """Another thread holds a lock of a module of the standard library."""

    faults = ("hung",)

    def __init__(self) -> None:
        import threading

        self.lock = __import__("_strptime")._cache_lock
        held = threading.Event()

        def hold() -> None:
            self.lock.acquire()
            held.set()
            threading.Event().wait()

        in_another_thread(hold)
        held.wait()

    def child(self) -> None:
        import time

        assert time.strptime("2026", "%Y").tm_year == 2026

    def after(self) -> None:
        assert not self.lock.acquire(blocking=False)


@thing("children")
class LateFamily(Thing):
    """A package like multiprocessing, imported between the two forks, and a child of it."""

    faults = ("the child lists its parent's children",)

    def __init__(self) -> None:
        import importlib
        import time

        self.package = importlib.import_module("multiprocess")
        self.process = self.package.get_context("fork").Process(target=time.sleep, args=(60,))
        self.process.daemon = True
        self.process.start()

    def child(self) -> None:
        assert not self.package.active_children(), "the child lists its parent's children"


MODULES = (
    *("asyncio", "concurrent.futures.process", "concurrent.futures.thread", "logging.handlers"),
    *("multiprocessing.managers", "multiprocessing.pool", "multiprocessing.resource_tracker"),
)


def in_order(fork: Forker, loaded: str, *names: str) -> None:
    """Fork; then make each of `names`, with a fork behind it."""
    if loaded == "loaded":
        for module in MODULES:
            __import__(module)
    fork.run(lambda: None)
    made: list[Thing] = []

    def child() -> None:
        for each in made:
            each.child()

    for name in names:
        made.append(THINGS[name]())
        second = fork(child)
        for each in made:
            each.meanwhile()
        second.result(30)
        second.join()
        for each in made:
            each.after()
