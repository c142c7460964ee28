"""Rows 23 and 24: locks of the standard library that a vanished thread held, free in the child."""

from __future__ import annotations

import sys
from typing import Any, Callable

import pytest
from harness import PYPY, READS_STACKS, WITHOUT_GIL, Broken, Forker, run

# A module, and a lock in it that each of the versions that this runs on has.
LOCKS = ("_strptime:_cache_lock", "tempfile:_once_lock", "threading:_active_limbo_lock")


def _locks() -> list[Any]:
    import importlib

    found = []
    for path in LOCKS:
        module, _, name = path.partition(":")
        found.append(getattr(importlib.import_module(module), name))
    return found


def held_by_a_thread(fork: Forker) -> None:
    import threading

    locks = _locks()[:2]
    ready = threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.acquire()
        ready.set()
        threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    ready.wait()

    def child() -> list[bool]:
        return [lock.acquire(timeout=0.5) for lock in locks]

    assert fork.run(child, end="_exit") == [True, True], "a lock is held in the child"


def busy_in_strptime(fork: Forker) -> None:
    """PyPy's compiled code takes the lock that is freed, and no older one."""
    import datetime
    import threading

    def work() -> str:
        return str(datetime.datetime.strptime("2020-01-02", "%Y-%m-%d"))

    def busy() -> None:
        while True:
            work()

    sys.setswitchinterval(1e-5)
    for _ in range(4):
        threading.Thread(target=busy, daemon=True).start()
    for _ in range(12):
        started = fork(work, end="_exit")
        try:
            assert started.result(5) == "2020-01-02 00:00:00"
        except Broken as exc:
            # PyPy's compiler itself dies in some children: "Fatal RPython error".
            if not PYPY or "hung" in str(exc):
                raise AssertionError("a lock is held in the child") from exc
        started.join()


def held_by_this_thread(fork: Forker) -> None:
    """In a with statement of this thread's: a mutex must not be open to two."""
    import threading

    lock = _locks()[1]
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    with lock:
        assert fork.run(lambda: lock.locked() and not lock.acquire(timeout=0.1), end="_exit")
        assert lock.locked()
    assert not lock.locked()


def of_the_programs_own(fork: Forker) -> None:
    """In builtins, and in a module that has the name of one of the standard library."""
    import builtins
    import sys
    import tempfile
    import threading

    with open(f"{tempfile.mkdtemp()}/turtle.py", "w") as file:
        file.write("import threading\nlock = threading.Lock()\n")
    sys.path.insert(0, file.name.rpartition("/")[0])
    import turtle

    locks = [turtle.lock, threading.Lock()]  # type: ignore[attr-defined]
    vars(builtins)["lock"] = locks[1]
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    for lock in locks:
        lock.acquire()
    assert fork.run(lambda: [lock.locked() for lock in locks], end="_exit") == [True, True]


def inside_of_a_module(fork: Forker) -> None:
    """This thread is in a function of the lock's own module."""
    import _strptime
    import datetime
    import threading

    threading.Thread(target=threading.Event().wait, daemon=True).start()
    seen: list[bool] = []
    found = _strptime._TimeRE_cache

    class Cache(type(found)):  # type: ignore[misc] # decided at run time
        @property
        def locale_time(self) -> Any:
            if not seen:
                seen.append(True)
                lock: Any = _strptime._cache_lock
                seen.append(fork.run(lock.locked, end="_exit"))
            return self.__dict__["locale_time"]

        @locale_time.setter
        def locale_time(self, value: Any) -> None:
            self.__dict__["locale_time"] = value

    found.__class__ = Cache
    datetime.datetime.strptime("2020-01-01", "%Y-%m-%d")
    assert seen == [True, True], seen


def mutex_of_a_queue(fork: Forker) -> None:
    """A thread stands inside of Queue.put, with the lock of the queue."""
    import queue
    import threading

    inside = threading.Event()

    class Slow(queue.Queue):  # type: ignore[type-arg]
        def _put(self, item: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                threading.Event().wait()
            super()._put(item)

    one = Slow()
    threading.Thread(target=one.put, args=(1,), daemon=True).start()
    inside.wait()

    def child() -> int:
        assert one.mutex.acquire(timeout=2), "a lock is held in the child"
        one.mutex.release()
        one.put(2)
        return int(one.get(timeout=2))

    assert fork.run(child, end="_exit") == 2


# On PyPy the bodies of with statements cannot be read: docs/limits.md.
NO_BODIES = pytest.mark.skipif(not READS_STACKS, reason="nobody tells who holds a plain lock")
HANGS_BY_ITSELF = pytest.mark.skipif(WITHOUT_GIL, reason="CPython's own fault: docs/limits.md")


@pytest.mark.parametrize(
    "program",
    [
        held_by_a_thread,
        pytest.param(busy_in_strptime, marks=HANGS_BY_ITSELF),
        pytest.param(mutex_of_a_queue, marks=NO_BODIES),
    ],
)
def test_they_are_free_in_the_child(program: Callable[[Forker], None], style: str) -> None:
    """What they guard is off by the one call that was under way."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
@pytest.mark.parametrize("program", [held_by_a_thread, busy_in_strptime, mutex_of_a_queue])
def test_elsewhere_they_are_held(program: Callable[[Forker], None], style: str) -> None:
    """By nobody who could release them."""
    outcome = run(program, style)
    assert outcome.shows("a lock is held in the child"), outcome


@pytest.mark.parametrize(
    "program",
    [pytest.param(held_by_this_thread, marks=NO_BODIES), of_the_programs_own, inside_of_a_module],
)
def test_what_this_thread_holds_stays_held(program: Callable[[Forker], None], style: str) -> None:
    """As after a plain fork."""
    for way in (style, "raw"):
        outcome = run(program, way)
        assert outcome.healthy, outcome
