"""Row 8: the child shares the parent's resource tracker, and neither waits for it nor holds it up.

The trackers of ``multiprocess`` and ``billiard`` are copies of the standard library's at different
ages, and are healed the same way.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

import pytest
from harness import NEW_TRACKER, PYPY, Forker, Outcome, run, run_plain


def program_lock(fork: Forker) -> None:
    """A thread is inside the tracker at the fork: it holds the lock, and is not in the child."""
    import threading
    from multiprocessing import resource_tracker
    from multiprocessing.shared_memory import SharedMemory

    tracker: Any = resource_tracker._resource_tracker
    memory = SharedMemory(create=True, size=8)
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with tracker._lock:
            inside.set()
            go_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    child = fork(_use_shared_memory)
    go_on.set()
    thread.join()
    assert child.result(5) == "used"
    assert child.join() == 0
    memory.close()
    memory.unlink()
    _use_shared_memory()


def program_relaunch(fork: Forker) -> None:
    """The tracker dies; the parent and each child start another when they need it."""
    import os
    import select
    import signal
    import warnings
    from multiprocessing import resource_tracker

    warnings.simplefilter("ignore", UserWarning)  # "process died unexpectedly, relaunching"
    tracker: Any = resource_tracker._resource_tracker
    tracker.ensure_running()
    pid = tracker._pid

    def after_its_death() -> int:
        _use_shared_memory()
        return int(tracker._pid)

    os.kill(pid, signal.SIGKILL)
    poll = select.poll()
    poll.register(tracker._fd, 0)
    assert poll.poll(10_000), "the tracker's end of the pipe is not closed"
    first = fork.run(after_its_death)
    second = after_its_death()
    assert len({pid, first, second}) == 3, (pid, first, second)
    assert fork.run(lambda: tracker._pid) is None, "the tracker is not the child's"
    assert tracker._pid == second


def program_stop(fork: Forker) -> None:
    """The parent stops its tracker for good, when children have come and gone."""
    import os
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    tracker.ensure_running()
    pid = tracker._pid
    for end in ("exit", "_exit"):
        assert fork.run(_use_shared_memory, end=end) == "used"
    assert tracker._pid == pid, "a child or its end replaced the tracker"
    tracker._stop()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        pass
    else:
        raise AssertionError("the tracker still runs, or was not reaped")
    _use_shared_memory()
    assert tracker._pid != pid


def program_never_waits(fork: Forker) -> None:
    """The child's end calls nothing on the tracker that only its parent may do."""
    import os
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    waitpid = os.waitpid

    def in_child() -> list[int]:
        asked = []

        def spy(pid: int, options: int) -> tuple[int, int]:
            asked.append(pid)
            return waitpid(pid, options)

        os.waitpid = spy
        _use_shared_memory()
        tracker: Any = resource_tracker._resource_tracker
        os.close(tracker._fd)  # the next use finds it dead
        tracker._fd = os.open(os.devnull, os.O_RDONLY)
        import warnings

        warnings.simplefilter("ignore", UserWarning)
        _use_shared_memory()
        os.waitpid = waitpid
        return asked

    assert fork.run(in_child) == [], "the child waited for the tracker"


def _use_shared_memory() -> str:
    from multiprocessing.shared_memory import SharedMemory

    memory: Any = SharedMemory(create=True, size=8)
    memory.buf[0] = 1
    memory.close()
    memory.unlink()
    return "used"


def program_child_lives_on(fork: Forker, package: str = "multiprocessing") -> None:
    """The parent ends by itself, while its child holds the tracker's pipe."""
    import importlib
    import os

    module = importlib.import_module(package + ".resource_tracker")
    _tell_when_the_wait_ran_out(module)
    module._resource_tracker.ensure_running()
    read, write = os.pipe()
    fork(_live_on, write)
    assert os.read(read, 1), "the child is not there"


def program_child_of_multiprocess_lives_on(fork: Forker) -> None:
    program_child_lives_on(fork, "multiprocess")


def program_child_ended(fork: Forker, package: str = "multiprocessing") -> None:
    """The parent ends after its children, and the tracker is waited for as ever."""
    import importlib

    module = importlib.import_module(package + ".resource_tracker")
    tracker = module._resource_tracker
    tracker.ensure_running()
    _fail_unless_reaped_at_the_end(module, tracker._pid)
    fork.run(_use_shared_memory)


def program_child_of_multiprocess_ended(fork: Forker) -> None:
    program_child_ended(fork, "multiprocess")


def program_descriptors_closed(fork: Forker) -> None:
    """A program closes all descriptors, as a daemon does, and opens others by the same numbers."""
    import atexit
    import os
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    files: list[int] = []

    def still_open() -> None:
        for fd in files:
            try:
                os.fstat(fd)
            except OSError:
                os._exit(3)

    atexit.register(still_open)  # runs after multiprocessing's own, which is registered later
    tracker.ensure_running()
    fork.run(_use_shared_memory)
    tracker._stop()
    highest = os.dup(2)
    os.closerange(3, highest + 20)
    files.extend(os.open(os.devnull, os.O_RDWR) for _ in range(20))
    assert fork.run(_use_shared_memory) == "used"


def program_many_children(fork: Forker) -> None:
    import os
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    fork.run(int)
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        fork.run(int)
    assert len(os.listdir("/dev/fd")) == before, "each fork opens another pipe"


def _live_on(there: int) -> None:
    import os
    import signal

    os.write(there, b".")
    signal.pause()


def _tell_when_the_wait_ran_out(module: Any) -> None:
    def look(tracker: Any) -> bool:
        return bool(getattr(tracker, "_waitpid_timed_out", False))

    _look_after_the_end(module, look)


def _fail_unless_reaped_at_the_end(module: Any, tracker_pid: int) -> None:
    import os

    def look(tracker: Any, kill: Any = os.kill) -> bool:
        try:
            kill(tracker_pid, 0)
        except ProcessLookupError:
            return False
        return True

    _look_after_the_end(module, look)


def _look_after_the_end(module: Any, look: Callable[[Any], bool]) -> None:
    """Make this process, and no child, fail where `look` is true after the tracker's own end."""
    import os

    cls = module.ResourceTracker
    end = getattr(cls, "__del__", None)
    if end is None:
        return  # this Python does not wait
    owner = os.getpid()

    def __del__(self: Any, exit: Any = os._exit, getpid: Any = os.getpid) -> None:
        end(self)
        if getpid() == owner and look(self):
            exit(4)

    cls.__del__ = __del__


def ends(program: Callable[..., None], style: str, timeout: float) -> Outcome:
    """Run `program`, whose child lives on."""
    return run(program, style, timeout=timeout, lives_on=True)


def healthy(program: Callable[..., None], style: str) -> None:
    outcome = run(program, style, timeout=20)
    assert outcome.healthy, outcome


def test_its_lock_is_free_in_the_child(style: str) -> None:
    """Although a thread of the parent held it at the fork, and goes on holding it there."""
    healthy(program_lock, style)


@pytest.mark.skipif(NEW_TRACKER, reason="this Python re-initialises the lock")
@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_its_lock_breaks_others(style: str) -> None:
    """The child waits for a thread that it does not have."""
    outcome = run_plain(program_lock, style)
    assert outcome.shows("hung"), outcome


def test_it_is_relaunched_after_its_death(style: str) -> None:
    """In the parent and in the child, each its own, and neither waits for the other's."""
    healthy(program_relaunch, style)


def test_the_parent_stops_it(style: str) -> None:
    """``_stop()`` closes the pipe, and the tracker ends, as no child is left that holds it."""
    healthy(program_stop, style)


def test_the_child_never_waits_for_it(style: str) -> None:
    """It is the parent's child."""
    healthy(program_never_waits, style)


@pytest.mark.skipif(NEW_TRACKER, reason="this Python forgets the pid")
@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_the_child_waits_elsewhere(style: str) -> None:
    """For a process that it cannot wait for."""
    outcome = run(program_never_waits, style, timeout=20)
    assert outcome.shows("the child waited for the tracker"), outcome


def test_the_parent_opens_one_pipe(style: str) -> None:
    """However many children it has."""
    healthy(program_many_children, style)


def test_the_parents_end_is_not_held_up(style: str) -> None:
    """By a child that lives on with the tracker's pipe."""
    if style == "process":
        pytest.skip("a Process is joined, by contract, when its parent ends")
    outcome = ends(program_child_lives_on, style, 20)
    assert outcome.healthy, outcome


def test_the_parents_end_is_not_held_up_by_multiprocess(style: str) -> None:
    """Which waits for its tracker without limit, where its Python did so at first."""
    pytest.importorskip("multiprocess")
    if style == "process":
        pytest.skip("a Process is joined, by contract, when its parent ends")
    outcome = ends(program_child_of_multiprocess_lives_on, style, 20)
    assert outcome.healthy, outcome


@pytest.mark.skipif(PYPY or sys.version_info < (3, 12), reason="waits for nothing before 3.12")
def test_the_parents_end_is_held_up_elsewhere() -> None:
    """For ever."""
    pytest.importorskip("multiprocess")
    outcome = ends(program_child_of_multiprocess_lives_on, "raw", 6)
    assert outcome.shows("hung"), outcome


def test_the_parents_end_still_waits(style: str) -> None:
    """Where no child lives, the tracker is reaped as ever."""
    healthy(program_child_ended, style)


def test_the_parents_end_still_waits_for_that_of_multiprocess(style: str) -> None:
    """Where no child lives, it is reaped as ever."""
    pytest.importorskip("multiprocess")
    healthy(program_child_of_multiprocess_ended, style)


def test_closes_no_descriptor_of_the_programs(style: str) -> None:
    """Numbers that the program has given to other files meanwhile are the program's."""
    healthy(program_descriptors_closed, style)
