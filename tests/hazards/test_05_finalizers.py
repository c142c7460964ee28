"""Row 5: the parent's ``multiprocessing.util.Finalize`` objects are not the child's to run.

They check the pid, but a pid recurs, and until then they keep the parent's objects alive and say
that they are still active. They are forgotten *before* the after-fork callbacks run: what a
callback registers in the child, as a manager's proxy does, runs at the child's end.
"""

from __future__ import annotations

from harness import Forker, run

FAULTS = ("the parent's finalizer is active in the child",)


def program(fork: Forker) -> None:
    import os

    util = fork.module("util")
    read, write = os.pipe()

    class Registered:
        pass

    def in_the_child(_: Registered) -> None:
        util.Finalize(None, os.write, args=(write, b"child\n"), exitpriority=5)

    inherited = util.Finalize(None, os.write, args=(write, b"parent\n"), exitpriority=5)
    registered = Registered()
    util.register_after_fork(registered, in_the_child)

    active = fork.run(inherited.still_active)
    os.set_blocking(read, False)
    try:
        written = os.read(read, 100)
    except BlockingIOError:
        written = b""
    assert not active, "the parent's finalizer is active in the child"
    assert written == b"child\n", written

    assert inherited.still_active()
    inherited()
    assert os.read(read, 100) == b"parent\n"


def test_the_child_has_only_its_own(style: str) -> None:
    """The child runs what its own after-fork callback registered, and nothing of the parent's."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


def test_breaks_under_os_fork() -> None:
    """Without forksafe the parent's finalizer is in the child's registry."""
    outcome = run(program, "raw")
    assert outcome.shows(*FAULTS), outcome
