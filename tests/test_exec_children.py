"""The child of ``subprocess.Popen(preexec_fn=...)`` is about to exec, and is left alone.

Python runs the at-fork hooks for it, alone among subprocess's children. No callback runs in it, the
parent's streams are not flushed for it, and the program that it becomes has the signal mask that it
would have without forksafe.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from harness import Forker, run

MASK = "import re; print(re.search('SigBlk:\\\\s*(\\\\w+)', open('/proc/self/status').read())[1])"


def popen_class() -> Any:
    import subprocess

    if os.environ.get("PATCHED"):
        from gevent import monkey

        monkey.patch_all()
    return subprocess.Popen


def masks(fork: Forker) -> None:
    import signal
    import subprocess
    import sys

    popen = popen_class()
    if fork.style == "hook":
        import forksafe

        assert forksafe.installed()

    def in_the_child() -> None:
        pass

    for blocked in (set(), {signal.SIGUSR1, signal.SIGTERM}):
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        expected = sum(1 << (number - 1) for number in blocked)
        for options in ({"preexec_fn": in_the_child}, {}):
            process = popen([sys.executable, "-S", "-c", MASK], stdout=subprocess.PIPE, **options)
            told, _ = process.communicate()
            assert process.returncode == 0
            assert int(told, 16) == expected, (told, expected, options)
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked


def callbacks(fork: Forker) -> None:
    import multiprocessing.util
    import sys

    popen = popen_class()
    read, write = os.pipe()

    class Registered:
        pass

    def after_fork(_: Registered) -> None:
        os.write(write, b"callback ")

    registered = Registered()
    multiprocessing.util.register_after_fork(registered, after_fork)
    process = popen(
        [sys.executable, "-S", "-c", "raise SystemExit(3)"],
        preexec_fn=lambda: os.write(write, b"preexec "),
    )
    assert process.wait() == 3
    assert os.read(read, 100) == b"preexec "

    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100) == b"callback ", "the hook is not on"


def streams(fork: Forker) -> None:
    import io
    import sys

    popen = popen_class()
    read, write = os.pipe()
    os.set_blocking(read, False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(write, "w")))
    sys.stdout.write("waits in the buffer")

    def written() -> bytes:
        try:
            return os.read(read, 100)
        except BlockingIOError:
            return b""

    process = popen([sys.executable, "-S", "-c", ""], preexec_fn=lambda: None)
    assert process.wait() == 0
    assert written() == b"", "flushed for a child that only execs"

    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert written() == b"waits in the buffer", "the hook is not on"


LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")


@LINUX
@pytest.mark.parametrize("style", ["raw", "hook"])
def test_the_program_has_the_mask_it_would_have(style: str) -> None:
    """The parent's, with preexec_fn and without, as under plain Python."""
    outcome = run(masks, style)
    assert outcome.healthy, outcome


def test_no_callback_runs_in_it() -> None:
    """They do in the next child that is forked to go on."""
    outcome = run(callbacks, "hook")
    assert outcome.healthy, outcome


def test_streams_are_not_flushed_for_it() -> None:
    """They are for the next child that is forked to go on."""
    outcome = run(streams, "hook")
    assert outcome.healthy, outcome


@pytest.mark.parametrize("program", [pytest.param(masks, marks=LINUX), callbacks, streams])
def test_the_same_with_gevent(program: Any) -> None:
    """Whose Popen forks and execs in Python."""
    pytest.importorskip("gevent")
    outcome = run(program, "hook", env={"PATCHED": "1"})
    assert outcome.healthy, outcome
