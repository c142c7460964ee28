"""Row 18: what a child's end does with the exit handlers it inherited.

POSIX has atexit handlers inherited by a fork, and servers rely on it to flush in their workers. So
after ``safe_fork()`` and under the hook they run in the child too. The child of `forked()` runs its
own only, as a ``Process`` does, and leaves the parent's temporary files where they are.
"""

from __future__ import annotations

import pytest
from harness import PYPY, Forker, run


class Log:
    """Lines that several processes write, told apart by pid."""

    def __init__(self) -> None:
        import os

        self.read, self.write = os.pipe()
        self.parent = os.getpid()

    def note(self, what: str) -> None:
        import os

        who = "parent" if os.getpid() == self.parent else "child"
        os.write(self.write, f"{who}: {what}\n".encode())

    def lines(self) -> list[str]:
        import os

        os.set_blocking(self.read, False)
        try:
            return os.read(self.read, 4096).decode().splitlines()
        except BlockingIOError:
            return []


def files(fork: Forker) -> None:
    import os
    import tempfile

    file = tempfile.NamedTemporaryFile()

    fork.run(file.read)
    assert os.path.exists(file.name), "the child's exit deleted the parent's file"
    name = file.name
    file.close()
    assert not os.path.exists(name), "the parent can no longer delete its file"


def held_by_a_handler(fork: Forker) -> None:
    import atexit
    import gc
    import os
    import tempfile

    def make() -> str:
        file = tempfile.NamedTemporaryFile()
        atexit.register(file.close)  # nothing else holds it
        return file.name

    name = make()
    fork.run(gc.collect)
    assert os.path.exists(name), "the child deleted the parent's file"


def own_files(fork: Forker) -> None:
    import os
    import tempfile

    kept = []

    def make() -> str:
        kept.append(tempfile.TemporaryDirectory())
        return kept[-1].name

    kept.append(tempfile.TemporaryDirectory())  # so that `finalize` is registered with atexit
    assert not os.path.exists(fork.run(make)), "the child left its own directory behind"
    assert os.path.exists(kept[0].name)


def handlers(fork: Forker) -> None:
    import atexit
    import multiprocessing.util

    log = Log()
    atexit.register(log.note, "registered by the parent")

    def register() -> None:
        atexit.register(log.note, "registered by the child")
        multiprocessing.util.Finalize(None, log.note, ("finalizer of the child",), exitpriority=1)

    fork.run(register)
    lines = log.lines()
    assert "child: finalizer of the child" in lines, lines
    assert "child: registered by the child" in lines, lines
    inherited = "child: registered by the parent" in lines
    assert inherited == (fork.style in ("raw", "safe_fork", "hook")), lines
    assert len(lines) == (3 if inherited else 2), lines
    atexit._run_exitfuncs()
    assert log.lines() == ["parent: registered by the parent"]


def of_a_callback(fork: Forker) -> None:
    import atexit
    from multiprocessing.util import register_after_fork

    log = Log()
    register_after_fork(log, lambda log: atexit.register(log.note, "exit handler"))

    fork.run(int)
    lines = log.lines()
    assert lines == ["child: exit handler"], f"the exit handlers ran: {lines}"


@pytest.mark.parametrize("style", ["forked", "process"])
def test_the_childs_end_keeps_the_parents_temporary_file(style: str) -> None:
    """And the parent can still delete it."""
    outcome = run(files, style)
    assert outcome.healthy, outcome


def test_what_an_inherited_handler_alone_holds_is_not_dropped() -> None:
    """The handlers of the parent do not run in the child, and are not forgotten there either."""
    outcome = run(held_by_a_handler, "forked")
    assert outcome.healthy, outcome


@pytest.mark.skipif(PYPY, reason="PyPy collects nothing at its exit, so the file stays")
def test_files_break_under_os_fork() -> None:
    """Without forksafe the child's exit deletes the file under the parent."""
    outcome = run(files, "raw")
    assert outcome.shows("the child's exit deleted the parent's file"), outcome


def test_the_childs_end_deletes_the_childs_temporary_directory() -> None:
    """What the child itself made is cleaned up at its end, as at the end of a program."""
    outcome = run(own_files, "forked")
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["safe_fork", "hook", "forked"])
def test_which_exit_handlers_run(style: str) -> None:
    """The child's own always; the parent's where a fork inherits them, and once in the parent.

    A ``Process`` is not asked: before 3.13 it runs no atexit handlers at all.
    """
    outcome = run(handlers, style)
    assert outcome.healthy, outcome


def test_exit_handlers_are_inherited_as_under_os_fork() -> None:
    """What ``safe_fork()`` and the hook keep is what a plain fork does."""
    outcome = run(handlers, "raw")
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["safe_fork", "hook", "forked"])
def test_an_exit_handler_that_a_callback_registers_is_the_childs_own(style: str) -> None:
    """So a library has its exit handler run in each process, where that is what it is for."""
    outcome = run(of_a_callback, style)
    assert outcome.healthy, outcome


def test_no_callback_runs_under_os_fork() -> None:
    """Nor does what it would have registered."""
    outcome = run(of_a_callback, "raw")
    assert outcome.shows("the exit handlers ran: []"), outcome
