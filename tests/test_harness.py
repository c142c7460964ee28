"""The harness: what it starts it ends, and what a control shows is what it names."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Callable

import pytest
from harness import LINUX, Forker, Outcome, process_table, run, run_plain


def leave(prepare: Callable[[], object]) -> None:
    """Leave a grandchild behind that never ends, and print its pid."""
    if os.fork() == 0:
        if os.fork() == 0:
            prepare()
            print(os.getpid(), flush=True)
            os.closerange(0, 3)
            while True:
                signal.pause()
        os._exit(0)
    os.wait()


def in_a_session_of_its_own() -> None:
    leave(os.setsid)


def with_another_environment() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.set_inheritable(write, True)
        code = f"import os, time; os.write({write}, b'.'); time.sleep(600)"
        os.execve(sys.executable, [sys.executable, "-c", code], {})
    os.read(read, 1)
    print(pid)


def gone(pid: int) -> bool:
    found = process_table([pid]).get(pid)
    return found is None or found.state in "ZX"


@pytest.mark.skipif(not LINUX, reason="reads /proc")
@pytest.mark.parametrize("program", [in_a_session_of_its_own, with_another_environment])
@pytest.mark.parametrize("lives_on", [True, False])
def test_grandchildren_are_ended(program: Callable[[], None], lives_on: bool) -> None:
    """A daemon, which has left its session and its parent, and one with an empty environment."""
    outcome = run(program, "", timeout=2, lives_on=lives_on)
    assert outcome.returncode == (0 if lives_on else None)
    pid = int(outcome.stdout)
    while not gone(pid):  # it may be on its way
        time.sleep(0.01)


def hangs(fork: Forker) -> None:
    time.sleep(600)


def looks_and_sleeps(fork: Forker) -> None:
    while True:
        time.sleep(0.01)


@pytest.mark.skipif(not LINUX, reason="reads /proc")
@pytest.mark.parametrize("program", [hangs, looks_and_sleeps])
def test_a_program_that_hangs(program: Callable[[Forker], None]) -> None:
    """It is not waited for until its time is over."""
    start = time.monotonic()
    outcome = run_plain(program, "raw")
    assert time.monotonic() - start < 20
    assert outcome.shows("hung")


def works(fork: Forker) -> None:
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        sum(range(1000))


def test_a_program_that_works_is_not_idle() -> None:
    assert run_plain(works, "raw").healthy


def test_what_a_control_shows() -> None:
    """The fault that it names; neither a source line nor a mistake of the program's."""
    trace = 'Traceback:\n    assert held, "entered"\n'
    assert Outcome(1, "", trace + "AssertionError: entered\n").shows("entered")
    assert not Outcome(1, "", trace + "NameError: name 'held' is not defined\n").shows("entered")
    assert not Outcome(None, "", "NameError: name 'x'\nhung: killed\n").shows("hung")
    assert not Outcome(0, "", "AssertionError: entered\n").shows("entered")
    assert not Outcome(1, "", "AssertionError: left\n").shows("entered")


def mistaken(fork: Forker) -> None:
    raise NameError("hung")


def unloadable() -> Callable[..., None]:
    """Return a program that is not in its file."""

    def nowhere(fork: Forker) -> None:
        pass

    return nowhere


def test_a_program_that_cannot_be_run() -> None:
    """It neither passes nor fails."""
    assert not run_plain(mistaken, "raw").shows("hung")
    with pytest.raises(AssertionError, match="KeyError: 'nowhere'"):
        run(unloadable(), "raw")
