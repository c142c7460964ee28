"""Row 17: a temporary directory is deleted by the process that made it, and by no other."""

from __future__ import annotations

import sys
from typing import Callable

import pytest
from harness import PYPY, Forker, run


def _ways_to_end() -> dict[str, Callable[[object], object]]:
    import os

    def fail(directory: object) -> None:
        raise ValueError("the child fails")

    return {
        "at its end": lambda directory: None,
        "by os._exit()": lambda directory: os._exit(0),
        "by an exception": fail,
    }


def program_survives(fork: Forker) -> None:
    import os
    from tempfile import TemporaryDirectory

    directory = TemporaryDirectory()
    for way, end in _ways_to_end().items():
        child = fork(end, directory)
        child.join()
        assert os.path.isdir(directory.name), f"the child deleted it, {way}"
    directory.cleanup()
    assert not os.path.exists(directory.name)


def program_asked_for(fork: Forker) -> None:
    """What the child's own code asks for happens."""
    import os
    from tempfile import TemporaryDirectory

    def leave_a_with_block(directory: TemporaryDirectory[str]) -> None:
        with directory:
            pass

    for ask in (TemporaryDirectory.cleanup, leave_a_with_block):
        directory = TemporaryDirectory()
        fork(ask, directory, end="_exit").join()
        assert not os.path.exists(directory.name), ask


def program_heirs(fork: Forker) -> None:
    """The owner ends without a word: the last of those who inherited its directory deletes it."""
    import os
    import sys
    import time
    from tempfile import TemporaryDirectory

    import forksafe

    os_fork = forksafe.safe_fork if fork.style == "safe_fork" else os.fork
    told, tell = os.pipe()
    over, end = os.pipe()  # at its end when all of them have ended
    if os_fork() == 0:
        directory = TemporaryDirectory()
        os.write(tell, f"{directory.name}\n".encode())
        ready, go = os.pipe()
        if os_fork() == 0:
            first = os_fork() == 0
            os.close(go)
            os.read(ready, 1)  # at its end when the owner has ended
            if not first:
                os.wait()
            if not os.path.isdir(directory.name):
                os.write(tell, b"deleted")
            sys.exit(0)
        os._exit(0)
    os.close(tell)
    os.close(end)
    os.read(over, 1)
    name, _, deleted = os.read(told, 4096).decode().partition("\n")
    assert not deleted, "the first of two heirs deleted it"
    deadline = time.monotonic() + 5
    while os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(name), "left behind"


def program_with_a_daemon(fork: Forker) -> None:
    """The last to have it is a daemonic process, which ends at the end of the one that made it."""
    import multiprocessing.util
    import os
    import sys
    import time
    from tempfile import TemporaryDirectory

    import forksafe

    os_fork = forksafe.safe_fork if fork.style == "safe_fork" else os.fork
    told, tell = os.pipe()
    if os_fork() == 0:
        directory = TemporaryDirectory()
        os.write(tell, directory.name.encode())
        if os_fork() == 0:
            context = multiprocessing.get_context("fork")
            context.Process(target=time.sleep, args=(60,), daemon=True).start()
            sys.exit(0)
        os._exit(0)
    name = os.read(told, 4096).decode()
    deadline = time.monotonic() + 10
    while os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(name), "left behind"


def program_collected(fork: Forker) -> None:
    """The child lets go of the last reference."""
    import gc
    import os
    from tempfile import TemporaryDirectory

    held = [TemporaryDirectory()]
    name = held[0].name

    def in_child() -> None:
        held.clear()
        gc.collect()
        gc.collect()

    fork(in_child, end="_exit").join()
    assert os.path.isdir(name), "the child deleted it"
    held.clear()
    gc.collect()
    assert not os.path.exists(name)


def program_own(fork: Forker) -> None:
    """What the child makes, the child cleans, and the parent its own at its end."""
    import os
    from tempfile import TemporaryDirectory

    kept = [TemporaryDirectory()]  # in the parent first: finalizers register at exit but once

    def in_child() -> tuple[str, str]:
        with TemporaryDirectory() as left:
            pass
        kept.append(TemporaryDirectory())
        assert os.path.isdir(kept[-1].name)
        return left, kept[-1].name

    child = fork(in_child)
    left, at_exit = child.result()
    assert child.join() == 0
    assert not os.path.exists(left)
    assert not os.path.exists(at_exit), "not cleaned at the child's exit"
    assert os.path.isdir(kept[0].name)
    print("parent's:", kept[0].name)


def program_grandchild(fork: Forker) -> None:
    import os
    from tempfile import TemporaryDirectory

    mine = TemporaryDirectory()

    def in_child() -> bool:
        its = TemporaryDirectory()
        fork(int, end="_exit").join()
        there = os.path.isdir(mine.name) and os.path.isdir(its.name)
        its.cleanup()
        return there and not os.path.exists(its.name)

    assert fork.run(in_child)
    assert os.path.isdir(mine.name)


def program_registered(fork: Forker) -> None:
    """The program cleans by an exit handler of its own, which the child inherits."""
    import atexit
    import os
    from tempfile import TemporaryDirectory

    directory = TemporaryDirectory()
    atexit.register(directory.cleanup)
    fork(lambda: None).join()
    assert os.path.isdir(directory.name), "the child deleted it"


SURVIVAL = [
    program_survives,
    program_collected,
    program_registered,
]


@pytest.mark.parametrize("program", [*SURVIVAL, program_grandchild])
def test_the_parents_directory_survives(program: Callable[..., None], style: str) -> None:
    """Whichever way the child lets go of it."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


def test_what_the_child_asks_for_happens(style: str) -> None:
    """cleanup(), and the end of a with block, delete, as under os.fork()."""
    for way in (style, "raw"):
        outcome = run(program_asked_for, way)
        assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "safe_fork", "hook"])
def test_a_daemons_directory_is_deleted_after_its_daemons(style: str) -> None:
    """Processes of multiprocessing that hold it, too, end at the daemon's own end."""
    outcome = run(program_with_a_daemon, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_a_daemons_directory_is_deleted_in_the_end(style: str) -> None:
    """By the last process that inherited it, where its owner ended by os._exit()."""
    outcome = run(program_heirs, style)
    assert outcome.healthy, outcome


def test_under_os_fork_the_first_heir_deletes() -> None:
    """And the other still uses it."""
    outcome = run(program_heirs, "raw")
    assert outcome.shows("the first of two heirs deleted it"), outcome


@pytest.mark.parametrize("program", SURVIVAL)
def test_breaks_under_os_fork(program: Callable[..., None]) -> None:
    """The child deletes it."""
    outcome = run(program, "raw")
    assert outcome.shows("the child deleted it"), outcome


def test_breaks_under_process_when_collected() -> None:
    """There, only the child's exit leaves it alone."""
    outcome = run(program_collected, "process-plain")
    assert outcome.shows("the child deleted it"), outcome


def test_the_childs_own_is_cleaned(style: str) -> None:
    """At the end of its block, and at the child's exit."""
    if style == "process" and (PYPY or sys.version_info < (3, 13)):
        pytest.skip("the child of Process runs no exit handlers before 3.13")
    outcome = run(program_own, style)
    assert outcome.healthy, outcome
    name = outcome.output.rpartition("parent's: ")[2].strip()
    import os

    assert name
    assert not os.path.exists(name)
