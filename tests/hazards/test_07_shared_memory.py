"""Row 7: shared memory of the parent outlives a child that attached to it (cpython gh-146313)."""

from __future__ import annotations

import sys
from typing import Any, Callable

import pytest
from harness import NEW_TRACKER, WITHOUT_GIL, Forker, run

# There with `track`, the child can keep out of it.
HAS_TRACK = sys.version_info >= (3, 13)


# No `finally` around the forks: a child that exits would run it too.


def program(fork: Forker) -> None:
    import os
    from multiprocessing.shared_memory import SharedMemory

    memory: Any = SharedMemory(create=True, size=64)
    memory.buf[0] = 1
    read, write = os.pipe()
    assert fork.run(_attach_and_note_the_end, memory.name, write) == 1
    os.close(write)
    assert os.read(read, 1) == b"", "the child or its tracker said something"
    assert memory.buf[1] == 2, "the child wrote somewhere else"
    assert fork.run(_attach, memory.name) == 1, "a second child does not find it"
    again = SharedMemory(memory.name)
    again.close()
    memory.close()
    memory.unlink()


def _attach_and_note_the_end(name: str, write: int) -> int:
    import os

    os.dup2(write, 2)  # a tracker that the child starts keeps stderr open until its own end
    return _attach(name)


def program_forksafe_first(fork: Forker) -> None:
    """The order of the at-fork hooks is the order of the imports: this is one."""
    assert "multiprocessing.resource_tracker" not in sys.modules
    import forksafe

    assert forksafe.installed() == (fork.style in ("hook", "process"))
    program(fork)


def program_tracker_first(fork: Forker) -> None:
    """And this is the other. The harness would install the hook first, so it is done here."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    assert "forksafe" not in sys.modules
    if fork.style in ("raw", "process-plain"):
        import forksafe

        forksafe.install()
    program(fork)


def program_made_in_the_child(fork: Forker) -> None:
    from multiprocessing.shared_memory import SharedMemory

    mine = SharedMemory(create=True, size=64)
    name = fork.run(_make)
    theirs: Any = SharedMemory(name)  # the tracker that both share keeps it
    assert theirs.buf[0] == 7
    theirs.close()
    theirs.unlink()
    mine.close()
    mine.unlink()


def program_of_a_grandchild(fork: Forker) -> None:
    from multiprocessing.shared_memory import SharedMemory

    memory: Any = SharedMemory(create=True, size=64)
    memory.buf[0] = 1
    assert fork.run(lambda: fork.run(_attach, memory.name, end="_exit")) == 1
    again = SharedMemory(memory.name)
    again.close()
    memory.close()
    memory.unlink()


def program_untracked(fork: Forker) -> None:
    from multiprocessing.shared_memory import SharedMemory

    memory: Any = SharedMemory(create=True, size=64)
    memory.buf[0] = 1
    assert fork.run(_attach, memory.name, False) == 1
    again = SharedMemory(memory.name, track=False)
    again.close()
    memory.close()
    memory.unlink()


def _attach(name: str, *track: bool) -> int:
    from multiprocessing.shared_memory import SharedMemory

    memory: Any = SharedMemory(name, track=track[0]) if track else SharedMemory(name)
    memory.buf[1] = 2
    value = int(memory.buf[0])
    memory.close()
    return value


def _make() -> str:
    from multiprocessing.shared_memory import SharedMemory

    memory: Any = SharedMemory(create=True, size=64)
    memory.buf[0] = 7
    memory.close()
    return str(memory.name)


def healthy_and_silent(program: Callable[..., None], style: str) -> None:
    outcome = run(program, style)
    assert outcome.healthy, outcome
    assert "leaked" not in outcome.output, outcome
    assert "resource_tracker" not in outcome.output, outcome


def test_a_child_attaches_and_ends(style: str) -> None:
    """The parent, and later children, find the memory as it was."""
    healthy_and_silent(program, style)


def test_with_forksafe_imported_before_the_tracker(style: str) -> None:
    """On newer Pythons forksafe's at-fork hook runs before the tracker's own then."""
    healthy_and_silent(program_forksafe_first, style)


def test_with_the_tracker_imported_before_forksafe(style: str) -> None:
    """And here after it."""
    style = {"hook": "raw", "process": "process-plain"}.get(style, style)
    healthy_and_silent(program_tracker_first, style)


def test_memory_made_in_the_child_outlives_it(style: str) -> None:
    """As in a child of Process: there is one tracker, the parent's."""
    healthy_and_silent(program_made_in_the_child, style)


def test_a_grandchild_attaches_and_ends(style: str) -> None:
    """The tracker is handed down."""
    healthy_and_silent(program_of_a_grandchild, style)


@pytest.mark.skipif(not HAS_TRACK, reason="SharedMemory has no track argument before 3.13")
def test_an_untracked_attachment(style: str) -> None:
    """It has nothing to do with the tracker, and works as before."""
    healthy_and_silent(program_untracked, style)


@pytest.mark.skipif(not NEW_TRACKER, reason="a bare fork keeps the tracker on this Python")
def test_breaks_under_os_fork() -> None:
    """The child's second tracker unlinks it under the parent."""
    outcome = run(program, "raw")
    assert outcome.shows("the child or its tracker said something"), outcome


@pytest.mark.skipif(NEW_TRACKER, reason="see test_breaks_under_os_fork")
@pytest.mark.skipif(WITHOUT_GIL, reason="a second tracker is started there, too")
def test_is_well_under_os_fork_before_that() -> None:
    """So the row is of newer Pythons only; this fails where that turns out wrong."""
    outcome = run(program, "raw")
    assert outcome.healthy, outcome
