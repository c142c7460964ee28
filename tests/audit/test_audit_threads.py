"""Threads, Python's and native ones: each is told, by name, target and where it stands."""

from __future__ import annotations

import functools
import platform
import sys
from typing import Any

import pytest
from fresh import LINUX, hazards
from harness import READS_STACKS
from native import start_native

needs_stacks = pytest.mark.skipif(not READS_STACKS, reason="no stacks of other threads there")


def one_thread() -> Any:
    import threading

    import forksafe

    go = threading.Event()
    threading.Thread(target=go.wait, name="MyMetrics-1", daemon=True).start()
    return forksafe.audit()


def test_a_thread_needs_action() -> None:
    """Its name, whether it is a daemon, its target and its top frame are told."""
    found = hazards(one_thread).one("thread")
    assert found.severity == "action"
    assert found.subject == "MyMetrics-1"
    assert found.where == "threading:Event.wait"
    assert "daemon thread 'MyMetrics-1'" in found.summary
    assert ("threading.py:" in found.detail) == READS_STACKS
    assert "after the fork" in found.remedy


def work(go: Any) -> None:
    go.wait()


class Worker:
    def loop(self, go: Any) -> None:
        go.wait()


def targets() -> Any:
    import threading

    import forksafe

    go = threading.Event()

    class Subclass(threading.Thread):
        def run(self) -> None:
            go.wait()

    threading.Thread(target=work, args=(go,), name="function").start()
    threading.Thread(target=Worker().loop, args=(go,), name="method").start()
    threading.Thread(target=functools.partial(work, go), name="partial").start()
    Subclass(name="subclass").start()
    timer = threading.Timer(1000, work)
    timer.name = "timer"
    timer.start()
    return forksafe.audit()


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("function", "program:work"),
        ("method", "program:Worker.loop"),
        ("partial", "program:work"),
        ("subclass", "program:targets.<locals>.Subclass.run"),
        ("timer", "program:work"),
    ],
)
def test_the_target_is_named(name: str, where: str) -> None:
    """However the thread was given its work; where it stands is the program's own line."""
    found = hazards(targets).one("thread", name)
    assert found.where == where
    assert "non-daemon" in found.summary
    if name != "timer" and READS_STACKS:  # a timer waits in threading itself
        assert "test_audit_threads.py:" in found.detail


def raw_thread() -> Any:
    import _thread

    import forksafe

    held, started = _thread.allocate_lock(), _thread.allocate_lock()
    held.acquire()
    started.acquire()

    def wait() -> None:
        started.release()
        held.acquire()

    _thread.start_new_thread(wait, ())
    started.acquire()
    return forksafe.audit()


@needs_stacks
def test_a_thread_that_threading_does_not_know() -> None:
    """It is told once, as a Python thread and not as a native one."""
    answer = hazards(raw_thread)
    found = answer.one("thread")
    assert found.severity == "action"
    name = "raw_thread.<locals>.wait" if sys.version_info >= (3, 11) else "wait"
    assert found.where == f"program:{name}"
    assert not [h for h in answer.of("native-thread") if h.severity == "action"], answer


def from_another_thread() -> Any:
    import threading

    import forksafe

    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.extend(forksafe.audit()))
    thread.start()
    thread.join()
    return answers


def test_for_a_fork_by_another_thread_the_main_thread_is_the_one_lost() -> None:
    """Nobody can start that one in the child: what helps is to fork in it."""
    found = hazards(from_another_thread).one("thread")
    assert found.severity == "action"
    assert found.subject == "MainThread"
    assert found.remedy.startswith("fork in the main thread")
    assert "os._exit(status)" in found.remedy


def readers() -> Any:
    import multiprocessing
    import threading

    import forksafe

    context = multiprocessing.get_context("fork")
    written, read = context.Queue(), context.Queue()
    written.put(1)  # which starts its feeder

    class Reader(threading.Thread):
        def run(self) -> None:
            read.get()

    threading.Thread(target=read.get, name="target", daemon=True).start()
    Reader(name="subclass", daemon=True).start()
    return forksafe.audit()


def test_readers_of_a_queue_are_the_programs_own() -> None:
    """Only the feeder of a queue is the queue's, which starts another in the child."""
    answer = hazards(readers)
    for name, where in (
        ("target", "multiprocessing.queues:Queue.get"),
        ("subclass", "program:readers.<locals>.Reader.run"),
    ):
        found = answer.one("thread", name)
        assert (found.severity, found.where) == ("action", where)
        assert "multiprocessing.Queue" not in found.summary
        assert "register_after_fork" in found.remedy
    feeder = answer.one("thread", "QueueFeederThread")
    assert feeder.severity == "fixed"
    assert "of multiprocessing.Queue" in feeder.summary


def users_of_a_pool() -> Any:
    import multiprocessing
    import multiprocessing.pool
    import threading
    import time

    import forksafe

    context = multiprocessing.get_context("fork")
    pool = context.Pool(1)
    threads = multiprocessing.pool.ThreadPool(1)
    go = threading.Event()

    def ask() -> None:
        threads.map(go.wait, [None])

    threading.Thread(target=pool.map, args=(time.sleep, [60]), name="method", daemon=True).start()
    threading.Thread(target=ask, name="function", daemon=True).start()
    answer = forksafe.audit()
    pool.terminate()
    go.set()
    return answer


def test_users_of_a_pool_are_the_programs_own() -> None:
    """The pool tells of its own threads, and needs action itself; theirs is told by them."""
    answer = hazards(users_of_a_pool)
    assert {h.subject for h in answer.of("pool")} == {"Pool", "ThreadPool"}
    for name, where in (
        ("method", "multiprocessing.pool:Pool.map"),
        ("function", "program:users_of_a_pool.<locals>.ask"),
    ):
        found = answer.one("thread", name)
        assert (found.severity, found.where) == ("action", where)
        assert "multiprocessing.Pool" not in found.summary
    own = [h for h in answer.of("thread") if h.subject not in ("method", "function")]
    assert len(own) == 3 + 4  # those of the ThreadPool, and the worker it has
    for found in own:
        assert found.severity == "advice"
        assert "of multiprocessing.Pool" in found.summary
        assert "as the pool tells" in found.summary


def nothing() -> Any:
    import forksafe

    return forksafe.audit()


def test_a_process_with_one_thread() -> None:
    """Nothing needs action, and no thread is told."""
    answer = hazards(nothing)
    assert not answer.actions, answer
    assert not answer.of("thread"), answer
    if LINUX:
        assert not answer.of("native-thread"), answer


@pytest.mark.skipif(not LINUX, reason="only Linux lists native threads")
def test_native_threads_are_told_by_name() -> None:
    """A thread that C code starts is none that Python knows."""
    found = hazards(native_thread).one("native-thread", "mine")
    assert found.severity == "action"
    assert found.where.startswith("tid ")
    assert "native thread 'mine'" in found.summary


def native_thread() -> Any:
    import forksafe

    start_native(b"mine")
    return forksafe.audit()


FOR_EVER = {"x86_64": b"\xeb\xfe", "aarch64": b"\x00\x00\x00\x14"}  # a jump to itself


def busy_native_thread() -> Any:
    import platform

    import forksafe

    start_native(b"busy", FOR_EVER[platform.machine()])
    return forksafe.audit()


@pytest.mark.skipif(not LINUX, reason="only Linux lists native threads")
@pytest.mark.skipif(platform.machine() not in FOR_EVER, reason="no machine code for this machine")
def test_a_native_thread_that_never_sleeps() -> None:
    """It is told from one that is about to end by how long it works."""
    found = hazards(busy_native_thread).one("native-thread", "busy")
    assert found.severity == "action"


def native_without_a_name() -> Any:
    import _thread
    import threading

    import forksafe

    go, started = threading.Event(), threading.Event()

    def raw() -> None:
        started.set()
        go.wait()

    def start() -> None:
        _thread.start_new_thread(raw, ())
        start_native()
        go.wait()

    threading.Thread(target=start, name="maker").start()
    started.wait()
    return forksafe.audit()


@needs_stacks
@pytest.mark.skipif(not LINUX, reason="only Linux lists native threads")
def test_native_threads_beside_raw_ones() -> None:
    """Both bear the name of the thread that started them, since 3.14 its own; each is told once."""
    answer = hazards(native_without_a_name)
    assert [h.subject for h in answer.of("thread")] in (
        ["maker", "(no name)"],
        ["(no name)", "maker"],
    )
    found = answer.one("native-thread")
    assert found.severity == "action"
    assert "without a name" in found.summary
    assert found.subject == "(unnamed)"


STOP = """
def stop_before(self):
    there.set()
    go.wait()
    original(self)

def stop_after(self):
    original(self)
    there.set()
    go.wait()
"""


def between(stop: str, stage: str) -> Any:
    import threading

    import forksafe

    there, go = threading.Event(), threading.Event()
    original = getattr(threading.Thread, stage)
    # As if it were threading's own code, for where the thread stands is looked at.
    code = {"__name__": "threading", "there": there, "go": go, "original": original}
    exec(STOP, code)
    between = type("Between", (threading.Thread,), {stage: code[stop]})
    thread = between(target=int, name="between", daemon=True)
    threading.Thread(target=thread.start, name="starter", daemon=True).start()
    there.wait()
    return forksafe.audit()


@needs_stacks
@pytest.mark.parametrize(
    ("stop", "stage", "told"),
    [
        ("stop_before", "_set_ident", False),
        ("stop_after", "_set_ident", True),
        ("stop_after", "_set_native_id", True),
        ("stop_after", "_bootstrap_inner", False),
    ],
)
def test_a_thread_that_starts_or_ends(stop: str, stage: str, told: bool) -> None:
    """The system lists it and ``threading`` does not: it is no native thread, nor one without name.

    Since 3.14 it bears a name of its own already, and still.
    """
    answer = hazards(between, stop, stage)
    assert not [h for h in answer.of("native-thread") if h.where], answer
    # The one that starts it is done with that when the other has ended.
    names = {h.subject for h in answer.of("thread")} - {"starter"}
    assert names == ({"between"} if told else set())


@pytest.mark.skipif(LINUX, reason="Linux lists native threads")
def test_native_threads_are_unknown_elsewhere() -> None:
    """Not absent: the audit says that it cannot see them."""
    assert hazards(nothing).one("unknown", "native threads").severity == "advice"


def queue_listener() -> Any:
    import logging.handlers
    import queue

    import forksafe

    listener = logging.handlers.QueueListener(queue.Queue(), logging.NullHandler())
    listener.start()
    return forksafe.audit()


def test_a_queue_listener() -> None:
    """The standard library's own background thread has a remedy of its own."""
    found = hazards(queue_listener).one("thread")
    assert found.severity == "action"
    assert found.where == "logging.handlers:QueueListener._monitor"
    assert "QueueListener" in found.summary
    assert "stop()" in found.remedy


def greenlets(threads: str) -> Any:
    from gevent import monkey

    monkey.patch_all()
    import threading

    import forksafe

    if threads:
        go = threading.Event()
        threading.Thread(target=go.wait, name="green", daemon=True).start()
        import gevent

        gevent.sleep(0)
    return forksafe.audit()


@pytest.mark.parametrize("threads", ["", "one"])
def test_greenlets_are_no_threads(threads: str) -> None:
    """A fork keeps them, whatever ``threading`` lists; and the one that asks."""
    pytest.importorskip("gevent", reason="pip install gevent")
    answer = hazards(greenlets, threads)
    assert not answer.of("thread"), answer
    assert not answer.of("native-thread"), answer
