"""Row 25: faulthandler's watchdog hangs the exit of a child, and is called off around the fork."""

from __future__ import annotations

import pytest
from harness import PYPY, Forker, run, run_plain

pytestmark = pytest.mark.skipif(PYPY, reason="PyPy's faulthandler has no such thread")


def armed(fork: Forker) -> None:
    import faulthandler

    if fork.style != "raw":
        import forksafe  # noqa: F401 - from here on it knows of watchdogs

    faulthandler.dump_traceback_later(60)
    fork.run(int)
    faulthandler.cancel_dump_traceback_later()


def in_the_child(fork: Forker) -> None:
    """The child sets one of its own, and cancels it."""
    import faulthandler

    import forksafe  # noqa: F401 - from here on it knows of watchdogs

    faulthandler.dump_traceback_later(60)

    def child() -> None:
        faulthandler.dump_traceback_later(60)
        faulthandler.cancel_dump_traceback_later()

    fork.run(child)
    faulthandler.cancel_dump_traceback_later()


def goes_on(fork: Forker) -> None:
    """In the parent it fires when it would have, by its repeat and by its file."""
    import faulthandler
    import os
    import tempfile
    import time

    for repeat in (False, True):
        with tempfile.TemporaryFile("w+") as file:
            begin = time.monotonic()
            faulthandler.dump_traceback_later(0.6, repeat=repeat, file=file)
            while time.monotonic() - begin < 0.4:
                fork.run(int, end="_exit")
            early = os.fstat(file.fileno()).st_size > 0
            assert not early or time.monotonic() - begin > 0.55, "it fired early"
            while os.fstat(file.fileno()).st_size == 0:
                assert time.monotonic() - begin < 5, "it never fired"
                time.sleep(0.01)
            assert time.monotonic() - begin > 0.55
            faulthandler.cancel_dump_traceback_later()


def file_closed(fork: Forker) -> None:
    import faulthandler
    import os
    import sys

    import forksafe  # noqa: F401 - from here on it knows of watchdogs

    told: list[str] = []
    sys.unraisablehook = lambda args: told.append(repr(args.exc_value))
    file = open(os.devnull, "w")
    faulthandler.dump_traceback_later(60, file=file)
    file.close()
    assert fork.run(lambda: told, end="_exit") == []
    assert len(told) == 1 and "closed file" in told[0], told


def put_back(fork: Forker) -> None:
    import faulthandler
    import inspect

    import forksafe

    ours = faulthandler.dump_traceback_later
    forksafe.uninstall()
    assert faulthandler.dump_traceback_later is not ours
    assert inspect.isbuiltin(faulthandler.dump_traceback_later)
    assert inspect.isbuiltin(faulthandler.cancel_dump_traceback_later)
    forksafe.install()
    assert faulthandler.dump_traceback_later is ours


def test_the_child_ends(style: str) -> None:
    """Although a watchdog is set in its parent."""
    for program in (armed, in_the_child):
        outcome = run(program, style)
        assert outcome.healthy, outcome


def test_one_that_cannot_be_set_again_is_told(style: str) -> None:
    """By the parent: its file was closed meanwhile."""
    outcome = run(file_closed, style)
    assert outcome.healthy, outcome


def test_under_os_fork_it_hangs() -> None:
    """At its exit, where it waits for a thread that it does not have."""
    outcome = run_plain(armed, "raw")
    assert outcome.shows("hung", "the child does not end"), outcome


def test_it_goes_on_in_the_parent(style: str) -> None:
    """With the time that is left."""
    outcome = run(goes_on, style)
    assert outcome.healthy, outcome


def test_uninstall_puts_the_functions_back() -> None:
    """Nothing of ours is left in the parent after it."""
    outcome = run(put_back, "hook")
    assert outcome.healthy, outcome
