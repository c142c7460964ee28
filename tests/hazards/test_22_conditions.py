"""Row 22: a vanished thread that waited in a Condition takes the child's first wakeup."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from harness import READS_STACKS, Forker, run


def _waits(target: Callable[[], Any], condition: Any, count: int = 1) -> None:
    """Start threads; return when they wait in `condition`."""
    import threading
    import time

    for _ in range(count):
        threading.Thread(target=target, daemon=True).start()
    while len(condition._waiters) < count:
        time.sleep(0.001)


def _wakes(target: Callable[[], Any], condition: Any, wake: Callable[[], Any]) -> bool:
    """In a child: start a thread that waits, and tell whether one call of `wake` wakes it."""
    import threading
    import time

    thread = threading.Thread(target=target, daemon=True)
    before = len(condition._waiters)
    thread.start()
    while len(condition._waiters) <= before:
        time.sleep(0.001)
    wake()
    thread.join(3)
    return not thread.is_alive()


def _notified(condition: Any) -> None:
    with condition:
        condition.notify()


def _waited(condition: Any) -> None:
    with condition:
        condition.wait()


def condition(fork: Forker) -> None:
    import threading

    one = threading.Condition()
    _waits(lambda: _waited(one), one, 3)
    assert fork.run(_wakes, lambda: _waited(one), one, lambda: _notified(one)), "not woken"


def subclass(fork: Forker) -> None:
    """Of the program's own, over a plain lock, which overrides wait()."""
    import threading

    class Mine(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(timeout)

    one = Mine(threading.Lock())
    _waits(lambda: _waited(one), one)
    assert fork.run(_wakes, lambda: _waited(one), one, lambda: _notified(one)), "not woken"


def semaphore(fork: Forker) -> None:
    import threading

    one: Any = threading.Semaphore(0)
    _waits(one.acquire, one._cond)
    assert fork.run(_wakes, one.acquire, one._cond, one.release), "not woken"


def queue_of_items(fork: Forker) -> None:
    """A worker that takes items, the commonest of all background threads, is started again."""
    import queue

    one: queue.Queue[int] = queue.Queue()
    _waits(one.get, one.not_empty)
    assert fork.run(_wakes, one.get, one.not_empty, lambda: one.put(1)), "not woken"


def queue_that_is_full(fork: Forker) -> None:
    import queue

    one: queue.Queue[int] = queue.Queue(1)
    one.put(1)
    _waits(lambda: one.put(2), one.not_full)
    assert fork.run(_wakes, lambda: one.put(3), one.not_full, one.get), "not woken"


def queue_that_is_joined(fork: Forker) -> None:
    """task_done() notifies all, so here nobody is lost: it only must go on working."""
    import queue

    one: queue.Queue[int] = queue.Queue()
    one.put(1)
    _waits(one.join, one.all_tasks_done)
    assert fork.run(_wakes, one.join, one.all_tasks_done, one.task_done), "not woken"


def barrier(fork: Forker) -> None:
    """Two must meet; one that vanished does not count, or one alone would pass."""
    import threading

    one: Any = threading.Barrier(2)
    _waits(one.wait, one._cond)

    def child() -> tuple[bool, int]:
        early = threading.Thread(target=one.wait, daemon=True)
        early.start()
        early.join(0.3)
        waits = early.is_alive()
        if waits:
            one.wait(3)
            early.join(3)
        return waits, one.n_waiting

    assert fork.run(child) == (True, 0), "one alone has passed"


def barrier_just_passed(fork: Forker) -> None:
    """The last who came goes on and forks; the others are about to leave it."""
    import threading
    import time

    one = threading.Barrier(2)
    for _ in range(20):
        threading.Thread(target=one.wait, daemon=True).start()
        while not one.n_waiting:
            time.sleep(0.001)
        one.wait()

        def child() -> bool:
            threading.Thread(target=one.wait, daemon=True).start()
            one.wait(3)
            return not one.broken

        assert fork.run(child, end="_exit")


def queue_listener(fork: Forker) -> None:
    """logging's own background thread, stopped nowhere, started again in the child."""
    import logging
    import logging.handlers
    import os
    import queue
    import tempfile
    import time

    path = os.path.join(tempfile.mkdtemp(), "log")
    records: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(records, logging.FileHandler(path))
    listener.start()
    log = logging.getLogger("row 22")
    log.propagate = False
    log.addHandler(logging.handlers.QueueHandler(records))
    while not records.not_empty._waiters:  # type: ignore[attr-defined] # threading's own
        time.sleep(0.001)

    def child() -> str:
        listener._thread = None  # the parent's
        listener.start()
        log.warning("from the child")
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and not os.path.getsize(path):
            time.sleep(0.01)
        with open(path) as file:
            return file.read()

    assert fork.run(child, end="_exit") == "from the child\n", "not woken"
    listener.stop()


PROGRAMS = [
    condition,
    subclass,
    semaphore,
    queue_of_items,
    queue_that_is_full,
    queue_listener,
    barrier,
]


@pytest.mark.parametrize("program", [*PROGRAMS, queue_that_is_joined, barrier_just_passed])
def test_the_living_are_woken(program: Callable[[Forker], None], style: str) -> None:
    """By the first notify(), put(), release() of the child."""
    if not READS_STACKS and program in (barrier, barrier_just_passed):
        pytest.skip("nobody knows there who waits in a barrier")
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_elsewhere_a_ghost_is(program: Callable[[Forker], None], style: str) -> None:
    """And the living one waits for ever."""
    outcome = run(program, style)
    fault = "one alone has passed" if program is barrier else "not woken"
    assert outcome.shows(fault), outcome


def own_waiter(fork: Forker) -> None:
    """A signal handler forks while its own thread waits in a Condition: in both it is woken."""
    import os
    import signal
    import threading
    import time

    import forksafe

    os_fork = forksafe.safe_fork if fork.style == "safe_fork" else os.fork
    one = threading.Condition()
    _waits(lambda: _waited(one), one)
    pids: list[int] = []

    def handler(number: int, frame: object) -> None:
        pids.append(os_fork())
        if pids == [0]:
            threading.Thread(target=wake, daemon=True).start()

    def wake() -> None:
        while not pids:
            time.sleep(0.01)
        with one:
            one.notify_all()

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    threading.Thread(target=wake, daemon=True).start()
    with one:
        woken = one.wait(2) if not pids else False
    if pids == [0]:
        os._exit(0 if woken else 1)
    assert woken
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    os._exit(0)


@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_this_threads_own_wait_goes_on(style: str) -> None:
    """And ends as it would have."""
    outcome = run(own_waiter, style)
    assert outcome.healthy, outcome


def nothing_in_the_parent(fork: Forker) -> None:
    import os
    import threading

    import forksafe

    one = threading.Condition()
    _waits(lambda: _waited(one), one)
    fork.run(int)
    assert "_waiters" not in vars(threading.Condition)
    assert set(vars(one)) == set(vars(threading.Condition())), "marked in the parent"

    def child() -> bool:
        assert not one._waiters  # type: ignore[attr-defined]
        forksafe.uninstall()
        return "_waiters" in vars(threading.Condition)

    assert not fork.run(child)
    with one:
        one.notify()
    os._exit(0)


def test_the_parents_conditions_stay_what_they_are(style: str) -> None:
    """And after uninstall() nothing is left in a child either."""
    outcome = run(nothing_in_the_parent, style)
    assert outcome.healthy, outcome
