"""Row 26: a lock that a vanished thread provably held is free in the child; this thread's is not.

Each of ``HOLDERS`` is what a thread does while somebody forks. `tests/test_with_bodies.py` has the
proof instruction by instruction.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import partial
from typing import Any, Callable, Iterator

import pytest
from harness import READS_STACKS, Forker, run

pytestmark = pytest.mark.skipif(
    not READS_STACKS,
    reason="on PyPy and without a GIL the stacks of other threads are not read",
)

STUCK = "locks that nobody releases"


class Holders:
    """Threads that stand where they hold a lock."""

    def __init__(self) -> None:
        import threading

        self.end = threading.Event()
        self.threads: list[Any] = []

    def start(self, hold: Callable[[Callable[[], None]], Any]) -> None:
        """Run `hold` in a thread; return when it has called its argument, and stands there."""
        import threading

        there = threading.Event()

        def stay() -> None:
            there.set()
            self.end.wait()

        thread = threading.Thread(target=hold, args=(stay,), daemon=True)
        thread.start()
        self.threads.append(thread)
        assert there.wait(10)

    def stop(self) -> None:
        self.end.set()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


def _stuck(locks: dict[str, Any]) -> list[str]:
    """Take each lock, and release it; return the names of those that cannot be taken."""
    stuck = []
    for name, lock in locks.items():
        lock = getattr(lock, "_lock", lock)
        if lock.acquire(timeout=0.2):
            lock.release()
        else:
            stuck.append(name)
    return stuck


class Core:
    def __init__(self, lock: Any) -> None:
        self.lock = lock


class Slotted:
    __slots__ = ("lock",)
    lock: Any


class Library:
    """Locks in all the places where libraries have them."""

    of_class: Any = None

    def __init__(self, make: Callable[[], Any]) -> None:
        import threading

        self.lock = make()
        self._core = Core(make())
        self.__private = make()
        self.slotted = Slotted()
        self.slotted.lock = make()
        self.by_hand = make()
        self.condition = threading.Condition(make())
        self.own_condition = threading.Condition()
        self.generated = make()
        self.awaited = make()
        Library.of_class = make()
        globals()["OF_MODULE"] = make()
        self.in_closure = make()

    def locks(self) -> dict[str, Any]:
        return {
            **{
                name: value
                for name, value in vars(self).items()
                if name not in ("_core", "slotted")
            },
            "_core.lock": self._core.lock,
            "slotted.lock": self.slotted.lock,
            "of_class": Library.of_class,
            "of_module": OF_MODULE,
        }

    def plain(self, stay: Callable[[], None]) -> None:
        with self.lock, self._core.lock:
            with self.__private:
                stay()

    def slot(self, stay: Callable[[], None]) -> None:
        slotted = self.slotted
        for _ in range(2):
            with slotted.lock:
                try:
                    stay()
                finally:
                    pass

    def hand(self, stay: Callable[[], None]) -> None:
        self.by_hand.acquire()
        try:
            stay()
        finally:
            self.by_hand.release()

    def conditions(self, stay: Callable[[], None]) -> None:
        with self.condition:
            with self.own_condition:
                stay()

    def generator(self, stay: Callable[[], None]) -> None:
        def generate() -> Iterator[int]:
            with self.generated:
                yield 1
                stay()
                yield 2

        list(generate())

    def coroutine(self, stay: Callable[[], None]) -> None:
        import asyncio

        async def inner() -> None:
            await asyncio.sleep(0)
            stay()

        async def outer() -> None:
            with self.awaited:
                await inner()

        asyncio.run(outer())

    @classmethod
    def of_the_class(cls, stay: Callable[[], None]) -> None:
        with cls.of_class:
            stay()

    @staticmethod
    def of_the_module(stay: Callable[[], None]) -> None:
        with OF_MODULE:
            stay()

    def closure(self, stay: Callable[[], None]) -> None:
        lock = self.in_closure

        def inner() -> None:
            with lock:
                stay()

        inner()


OF_MODULE: Any = None


def _held_by_others(fork: Forker, make: Callable[[], Any]) -> None:
    library = Library(make)
    holders = Holders()
    for hold in (
        library.plain, library.slot, library.hand, library.conditions, library.generator,
        library.coroutine, library.of_the_class, library.of_the_module, library.closure,
    ):  # fmt: skip
        holders.start(hold)
    locks = library.locks()
    assert len(locks) == 12

    def child() -> tuple[list[str], str | None]:
        stuck = _stuck(locks)
        forksafe: Any = sys.modules.get("forksafe")
        return stuck, forksafe and (forksafe.last_reset() or {}).get("locks")

    stuck, told = fork.run(child, end="_exit")
    assert not stuck, f"{STUCK}: {stuck}"
    assert told == "done: 12 freed", told
    assert len(_stuck(locks)) == 12, "in the parent they are the holders'"
    holders.stop()
    assert not _stuck(locks)


def locks_held_by_others(fork: Forker) -> None:
    import threading

    _held_by_others(fork, threading.Lock)


def re_entrant_locks_held_by_others(fork: Forker) -> None:
    import threading

    _held_by_others(fork, threading.RLock)


def held_by_a_thread_of_c(fork: Forker) -> None:
    """Which runs a callback in Python: the threading module knows nothing of it."""
    import ctypes
    import threading

    lock, there = threading.Lock(), threading.Event()

    def hold(_: object) -> None:
        with lock:
            there.set()
            threading.Event().wait()

    run_it = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(hold)
    assert ctypes.CDLL(None).pthread_create(ctypes.byref(ctypes.c_ulong()), None, run_it, None) == 0
    assert there.wait(10)
    stuck = fork.run(_stuck, {"lock": lock}, end="_exit")
    assert not stuck, f"{STUCK}: {stuck}"
    assert lock.locked()
    os._exit(0)


def taken_by_a_callback(fork: Forker) -> None:
    """A callback of multiprocessing's own, which are part of the reset, takes a lock."""
    import threading
    from multiprocessing.util import register_after_fork

    lock = threading.Lock()

    def hold(stay: Callable[[], None]) -> None:
        with lock:
            stay()

    def own(_: object) -> None:
        taken.append(lock.acquire(timeout=1))

    taken: list[bool] = []
    own.__module__ = "multiprocessing.of_a_test"
    register_after_fork(own, own)
    holders = Holders()
    holders.start(hold)
    assert fork.run(lambda: taken, end="_exit") == [True], STUCK
    holders.stop()


# As libraries do it: state behind a lock, and a slow thing done while it is held.


def statsd_client(fork: Forker) -> None:
    """A client that sends what it has gathered while it holds the lock on it."""
    import socket
    import threading
    import time

    class Client:
        def __init__(self, address: tuple[str, int]) -> None:
            self._lock = threading.Lock()
            self._lines: list[str] = []
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.connect(address)

        def increment(self, name: str) -> None:
            with self._lock:
                self._lines.append(f"{name}:1|c")
                if len(self._lines) == 10:
                    self._flush()

        def _flush(self) -> None:
            time.sleep(0.002)  # the network
            self._socket.send("\n".join(self._lines).encode())
            self._lines.clear()

    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    client = Client(server.getsockname())

    def count() -> None:
        while True:
            client.increment("requests")

    for _ in range(3):
        threading.Thread(target=count, daemon=True).start()

    def child() -> str:
        thread = threading.Thread(target=client.increment, args=("children",), daemon=True)
        thread.start()
        thread.join(2)
        return STUCK if thread.is_alive() else "counted"

    for _ in range(30):
        told = fork.run(child, end="_exit")
        assert told == "counted", told


def cache_with_a_slow_loader(fork: Forker) -> None:
    """A cache that loads what it has not got while it holds the lock on all of it."""
    import threading
    from collections import OrderedDict

    class Cache(OrderedDict):  # type: ignore[type-arg] # a dictionary of whatever
        def __init__(self, load: Callable[[str], str]) -> None:
            super().__init__()
            self._lock = threading.Lock()
            self._load = load

        def __missing__(self, key: str) -> str:
            with self._lock:
                self[key] = value = self._load(key)
                if len(self) > 2:
                    self.popitem(last=False)
                return value

    holders = Holders()
    stays: list[Callable[[], None]] = []

    def load(key: str) -> str:
        if stays:
            stays.pop()()
        return key

    cache = Cache(load)

    def hold(stay: Callable[[], None]) -> None:
        stays.append(stay)
        cache["slow"]

    holders.start(hold)

    def child() -> str | None:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(cache["other"]), daemon=True)
        thread.start()
        thread.join(2)
        return found[0] if found else STUCK

    told = fork.run(child, end="_exit")
    assert told == "other", told
    holders.stop()
    assert sorted(cache) == ["slow"]


def opentelemetry_export(fork: Forker) -> None:
    """The reader of its metrics exports, in a thread of its own, while it holds a lock."""
    import threading

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        MetricExporter,
        MetricExportResult,
        PeriodicExportingMetricReader,
    )

    exporting, go_on = threading.Event(), threading.Event()

    class Exporter(MetricExporter):  # type: ignore[misc] # its types are not everywhere
        def export(self, *args: Any, **kwargs: Any) -> Any:
            exporting.set()
            go_on.wait()
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

        def shutdown(self, *args: Any, **kwargs: Any) -> None:
            pass

    reader = PeriodicExportingMetricReader(Exporter(), export_interval_millis=50)
    counter = MeterProvider([reader]).get_meter("test").create_counter("requests")
    counter.add(1)
    assert exporting.wait(10)

    def child() -> str:
        go_on.set()
        counter.add(1)
        thread = threading.Thread(target=reader.collect, daemon=True)
        thread.start()
        thread.join(3)
        return STUCK if thread.is_alive() else "exported"

    told = fork.run(child, end="_exit")
    assert told == "exported", told
    go_on.set()


def urllib3_pools(fork: Forker) -> None:
    """The manager of its pools makes one while it holds the lock on all."""
    import urllib3

    manager = urllib3.PoolManager()
    holders = Holders()
    stays: list[Callable[[], None]] = []

    class Pool(urllib3.HTTPConnectionPool):  # type: ignore[misc] # its types are not everywhere
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if stays:
                stays.pop()()
            super().__init__(*args, **kwargs)

    manager.pool_classes_by_scheme = {"http": Pool}

    def hold(stay: Callable[[], None]) -> None:
        stays.append(stay)
        manager.connection_from_host("127.0.0.1", 1)

    holders.start(hold)

    def child() -> str:
        # In this thread: a new one can have the number of the one that is gone, and with it the
        # re-entrant lock.
        if _stuck({"pools": manager.pools.lock}):
            return STUCK
        manager.connection_from_host("::1", 2)
        return "made"

    told = fork.run(child, end="_exit")
    assert told == "made", told
    holders.stop()


HOLDERS = [
    locks_held_by_others, re_entrant_locks_held_by_others, statsd_client, cache_with_a_slow_loader,
    opentelemetry_export, urllib3_pools, held_by_a_thread_of_c, taken_by_a_callback,
]  # fmt: skip


def _installed(program: Callable[[Forker], None]) -> None:
    library = program.__name__.partition("_")[0]
    if library in ("opentelemetry", "urllib3") and importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}, of the extra `servers`")


@pytest.mark.parametrize("program", HOLDERS, ids=lambda program: program.__name__)
def test_is_free_in_the_child(program: Callable[[Forker], None], style: str) -> None:
    """And in the parent it stays its holder's."""
    _installed(program)
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("program", HOLDERS, ids=lambda program: program.__name__)
def test_breaks_under_os_fork(program: Callable[[Forker], None]) -> None:
    """Without forksafe the child waits for a thread that it does not have."""
    _installed(program)
    outcome = run(program, "raw")
    assert outcome.shows(STUCK), outcome


# What this thread holds.


def held_by_this_thread(fork: Forker) -> None:
    """In whatever way, and while other threads wait for it in a with statement."""
    import threading
    from contextlib import ExitStack, contextmanager

    def check(lock: Any, times: int = 1) -> str:
        me = getattr(lock, "_is_owned", lock.locked if hasattr(lock, "locked") else None)
        if me is None or not me():
            return "free"
        if type(lock) is type(threading.Lock()) and lock.acquire(timeout=0.02):
            return "open to two"
        for _ in range(times):
            lock.release()
        took: list[bool] = []
        thread = threading.Thread(target=lambda: took.append(lock.acquire(timeout=2)))
        thread.start()
        thread.join()
        return "held" if took == [True] else "not released"

    @contextmanager
    def managed(lock: Any) -> Iterator[None]:
        with lock:
            yield

    def by_with(lock: Any) -> None:
        with lock:
            results.append(fork.run(check, lock, end="_exit"))

    def by_acquire(lock: Any) -> None:
        lock.acquire()
        results.append(fork.run(check, lock, end="_exit"))
        lock.release()

    def by_try(lock: Any) -> None:
        lock.acquire()
        try:
            results.append(fork.run(check, lock, end="_exit"))
        finally:
            lock.release()

    def by_manager(lock: Any) -> None:
        with managed(lock):
            results.append(fork.run(check, lock, end="_exit"))

    def by_stack(lock: Any) -> None:
        with ExitStack() as stack:
            stack.enter_context(lock)
            results.append(fork.run(check, lock, end="_exit"))

    def by_handler(lock: Any) -> None:
        import os
        import signal

        def handle(*_: object) -> None:
            results.append(fork.run(check, lock, end="_exit"))

        signal.signal(signal.SIGUSR1, handle)
        with lock:
            os.kill(os.getpid(), signal.SIGUSR1)

    def wait(lock: Any, ended: threading.Event) -> None:
        while not ended.is_set():
            with lock:
                pass

    ways = (by_with, by_acquire, by_try, by_manager, by_stack, by_handler)
    results: list[str] = []
    for make in (threading.Lock, threading.RLock):
        for way in ways:
            lock: Any = make()

            ended = threading.Event()
            waiting = [
                threading.Thread(target=wait, args=(lock, ended), daemon=True) for _ in range(2)
            ]
            for thread in waiting:
                thread.start()
            for _ in range(4):
                way(lock)
            ended.set()
            for thread in waiting:
                thread.join(10)
    assert results == ["held"] * 48, results


def hooks_that_take_it(fork: Forker) -> None:
    """Taken before the fork and released after it in both, as libraries do it with at-fork hooks.

    Under ``hook`` these are registered after forksafe's hooks, else before them, and once more
    after them.
    """
    import os
    import threading

    locks = [threading.Lock(), threading.Lock()]

    def register(lock: Any) -> None:
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )

    def use(lock: Any) -> None:
        while True:
            with lock:
                sum(range(100))

    register(locks[0])
    import forksafe  # noqa: F401 - registers its own

    register(locks[1])
    for lock in locks * 2:
        threading.Thread(target=use, args=(lock,), daemon=True).start()
    for _ in range(40):
        assert fork.run(lambda: [lock.locked() for lock in locks], end="_exit") == [False, False]


def at_random(fork: Forker) -> None:
    """Threads and this one hold locks, or wait for them: what was this thread's is, no other."""
    import random
    import threading
    import time

    for seed in range(25):
        decide = random.Random(seed)
        locks = [decide.choice((threading.Lock, threading.RLock))() for _ in range(8)]
        free = list(range(8))
        decide.shuffle(free)
        mine = [free.pop() for _ in range(decide.randint(0, 3))]
        holders = Holders()

        def hold(stay: Callable[[], None], depth: list[int], locks: list[Any] = locks) -> None:
            if not depth:
                stay()
                return
            lock = locks[depth[0]]
            if depth[0] % 2:
                with lock:
                    hold(stay, depth[1:])
            else:
                lock.acquire()
                try:
                    hold(stay, depth[1:])
                finally:
                    lock.release()

        for _ in range(decide.randint(1, 3)):
            depth = [free.pop() for _ in range(decide.randint(0, min(2, len(free))))]
            holders.start(partial(hold, depth=depth))
        for place in mine:
            locks[place].acquire()

        def wait(lock: Any) -> None:
            with lock:
                pass

        waiting = [
            threading.Thread(target=wait, args=(decide.choice(locks),), daemon=True)
            for _ in range(decide.randint(0, 4))
        ]
        for thread in waiting:
            thread.start()
        time.sleep(0.01)

        def child(locks: list[Any] = locks) -> list[str]:
            states = []
            for lock in locks:
                if hasattr(lock, "_is_owned"):
                    states.append("mine" if lock._is_owned() else _free(lock))
                else:
                    states.append(_free(lock))
            return states

        states = fork.run(child, end="_exit")
        expected = ["free"] * 8
        for place in mine:
            expected[place] = "mine" if hasattr(locks[place], "_is_owned") else "held"
        assert states == expected, (seed, states, expected)
        for place in mine:
            locks[place].release()
        holders.stop()
        for thread in waiting:
            thread.join(10)
        assert not _stuck(dict(enumerate(locks)))  # type: ignore[arg-type] # by number


def _free(lock: Any) -> str:
    if lock.acquire(timeout=0.02):
        lock.release()
        return "free"
    return "held"


@pytest.mark.parametrize(
    "program", [held_by_this_thread, hooks_that_take_it, at_random], ids=lambda one: one.__name__
)
def test_this_threads_stays_held(program: Callable[[Forker], None], style: str) -> None:
    """A mutex is never open to two."""
    outcome = run(program, style, timeout=90)
    assert outcome.healthy, outcome
    assert "Exception ignored" not in outcome.output


def turned_off(fork: Forker) -> None:
    import threading

    import forksafe

    forksafe.install(free_locks=False)
    condition = threading.Condition(threading.Lock())
    locks: dict[str, Any] = {"own": threading.Lock(), "queue": condition}
    holders = Holders()

    def hold(stay: Callable[[], None]) -> None:
        with locks["own"]:
            stay()

    holders.start(hold)
    assert fork.run(_stuck, locks, end="_exit") == ["own"]
    holders.stop()


def test_can_be_turned_off() -> None:
    """By install(free_locks=False)."""
    outcome = run(turned_off, "hook")
    assert outcome.healthy, outcome


def under_gevent(fork: Forker) -> None:
    import gevent.monkey

    gevent.monkey.patch_all()
    import os
    import threading

    import gevent

    import forksafe

    ran: list[bool] = []
    native = gevent.get_hub().threadpool.spawn(gevent.monkey.get_original("time", "sleep"), 1)
    gevent.spawn(ran.append, True)
    wait = gevent.monkey.get_original("os", "waitpid")  # gevent's misses a child that ends at once
    pid = forksafe.safe_fork()
    if pid == 0:
        os._exit(len(ran))
    assert os.waitstatus_to_exitcode(wait(pid, 0)[1]) == 0, "a greenlet ran inside the fork"
    native.get()
    assert threading.active_count() == 1


def test_no_greenlet_runs_inside_the_fork() -> None:
    """While this thread gives up the GIL, to see who has a lock."""
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("needs gevent, of the extra `servers`")
    outcome = run(under_gevent, "safe_fork")
    assert outcome.healthy, outcome


def many_children(fork: Forker) -> None:
    """Threads that hold locks about half of the time, busy and asleep."""
    import json
    import threading
    import time

    class Busy:
        shared = threading.RLock()

        def __init__(self, number: int) -> None:
            make: Any = (threading.Lock, threading.RLock, threading.Condition)[number % 3]
            self.lock = make()
            self.core = Core(threading.Lock())
            self.gate = threading.Condition(threading.Lock())

        def work(self) -> None:
            with self.lock:
                json.dumps(list(range(300)))
                time.sleep(0.0003)
            self.core.lock.acquire()
            try:
                json.dumps(list(range(100)))
                time.sleep(0.0002)
            finally:
                self.core.lock.release()
            with self.shared:
                json.dumps(list(range(50)))
            with self.gate:
                self.gate.wait(0.0002)
            with gate:
                time.sleep(0.0002)

        def run(self) -> None:
            while True:
                self.work()

    gate = threading.Lock()
    busy = [Busy(number) for number in range(6)]
    for one in busy:
        threading.Thread(target=one.run, daemon=True).start()
    locks: dict[str, Any] = {"gate": gate, "shared": Busy.shared}
    for number, one in enumerate(busy):
        locks.update(
            {
                f"lock {number}": one.lock,
                f"core {number}": one.core.lock,
                f"gate {number}": one.gate,
            }
        )
    import os

    count = int(os.environ.get("FORKSAFE_CHILDREN", "60"))
    bad = [stuck for _ in range(count) if (stuck := fork.run(_stuck, locks, end="_exit"))]
    assert not bad, f"{STUCK}: in {len(bad)} of {count} children: {bad[:3]}"


def test_many_children(style: str) -> None:
    """Whenever the fork comes."""
    outcome = run(many_children, style, timeout=90)
    assert outcome.healthy, outcome


def test_many_children_of_os_fork() -> None:
    """Without forksafe each child has some lock that is stuck."""
    outcome = run(many_children, "raw", env={"FORKSAFE_CHILDREN": "3"})
    assert outcome.shows(STUCK), outcome
