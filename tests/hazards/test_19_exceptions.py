"""Row 19: an exception in the child ends the child, and not by way of the parent's program.

After a fork two processes stand in the same call stack. What the child raises runs the ``except``
and ``finally`` clauses around the fork, and then the rest of the program, a second time. The child
of `forked()` never leaves its block.
"""

from __future__ import annotations

import pytest
from harness import Forker, run


def program(fork: Forker) -> None:
    import os

    read, write = os.pipe()
    parent = os.getpid()

    def note(what: str) -> None:
        who = "parent" if os.getpid() == parent else "child"
        os.write(write, f"{who}: {what}\n".encode())

    def go_on(exc: BaseException | None) -> None:
        try:
            try:
                fail_in_a_child(fork.style, exc)
            except Exception:
                note("except")
            else:
                note("else")
            finally:
                note("finally")
        except SystemExit:
            note("except SystemExit")
        note("the remaining program")
        if os.getpid() != parent:
            os._exit(0)

    for exc in (ValueError("of the child"), SystemExit(3), KeyboardInterrupt(), None):
        go_on(exc)
        lines = os.read(read, 4096).decode().splitlines()
        assert lines == [
            "parent: else",
            "parent: finally",
            "parent: the remaining program",
        ], lines


def fail_in_a_child(style: str, exc: BaseException | None) -> None:
    """Fork a child that raises `exc`, or returns from here where it is None, and wait for it."""
    import multiprocessing
    import os

    def fail() -> None:
        if exc is not None:
            raise exc

    if style == "forked":
        import forksafe

        with forksafe.forked(check=False) as child:
            if child.is_child:
                fail()
                return
    elif style in ("process", "process-plain"):
        process = multiprocessing.get_context("fork").Process(target=fail)
        process.start()
        process.join()
    else:
        pid = os.fork()
        if pid == 0:
            return fail()
        os.waitpid(pid, 0)
    return None


@pytest.mark.parametrize("style", ["forked", "process"])
def test_the_program_around_the_fork_is_run_by_the_parent_alone(style: str) -> None:
    """Whatever the child raises, or if it returns out of the function that forked."""
    outcome = run(program, style)
    assert outcome.healthy, outcome
    assert "ValueError: of the child" in outcome.output, "nobody told of the child's exception"


def test_breaks_under_os_fork() -> None:
    """Without forksafe the child goes through the parent's clauses."""
    outcome = run(program, "raw")
    assert outcome.shows("child: finally"), outcome
