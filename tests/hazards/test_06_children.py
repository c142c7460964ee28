"""Row 6: the parent's child processes are not the child's.

The normal exit of a process ends its daemon processes by SIGTERM and joins the others. A forked
child that believes itself their parent does so to its siblings.
"""

from __future__ import annotations

from harness import Forker, run, run_plain

# The first where the daemon takes its time to end.
FAULTS = ("the child lists its parent's children", "the child ended its parent's daemon")


def program(fork: Forker) -> None:
    import os
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    context = fork.package.get_context("fork")
    ours, theirs = context.Pipe()

    def answer() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while theirs.recv() != "end":
            theirs.send(os.getpid())

    def siblings() -> list[int]:
        return [process.pid for process in fork.package.active_children()]

    daemon = context.Process(target=answer, daemon=True)
    daemon.start()
    theirs.close()
    children = fork.run(siblings)

    assert daemon.is_alive(), "the child ended its parent's daemon"
    ours.send("ping")
    assert ours.recv() == daemon.pid
    assert children == [], "the child lists its parent's children"
    assert daemon in fork.package.active_children()
    ours.send("end")
    daemon.join(10)
    assert daemon.exitcode == 0


def test_the_parents_daemon_outlives_the_child(style: str) -> None:
    """A child that just exits leaves its siblings alone, and exits in peace."""
    outcome = run(program, style)
    assert outcome.healthy, outcome
    assert "can only join a child process" not in outcome.output


def test_breaks_under_os_fork() -> None:
    """Without forksafe the child ends the daemon, and then trips over joining it."""
    outcome = run_plain(program, "raw")
    assert outcome.shows(*FAULTS), outcome
    assert outcome.shows("can only join a child process"), outcome
