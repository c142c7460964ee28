"""Row 16: no signal handler ever sees a half-reset child, and no signal is lost."""

from __future__ import annotations

import signal

import pytest
from harness import PYPY, Forker, run
from programs import script

FORKS = 60  # under each of four styles


def storm(fork: Forker) -> None:
    """Fork hundreds of times under SIGUSR1 every 2 ms, sent to the whole group from outside."""
    import os
    import subprocess
    import sys
    from multiprocessing.util import register_after_fork

    parent = os.getpid()
    seen_half_reset = []
    reset_in = [parent]

    class Resource:
        pass

    first, last = Resource(), Resource()

    def reset(_: object) -> None:
        sum(range(20_000))  # the reset takes its time
        reset_in.append(os.getpid())

    reset.__module__ = "multiprocessing.of_a_test"  # its own entries are what makes a child whole
    register_after_fork(first, reset)
    register_after_fork(last, lambda _: None)

    def handler(number: int, frame: object) -> None:
        if os.getpid() not in reset_in:
            seen_half_reset.append(os.getpid())

    signal.signal(signal.SIGUSR1, handler)
    sender = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import os, signal, time\n"
                "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
                "print(flush=True)\n"
                f"while os.getppid() == {parent}:\n"
                "    os.killpg(0, signal.SIGUSR1)\n"
                "    time.sleep(0.002)\n"
            ),
        ],
        stdout=subprocess.PIPE,
    )
    assert sender.stdout is not None
    sender.stdout.readline()

    def child() -> tuple[list[int], set[int], int]:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        return seen_half_reset, {int(number) for number in mask}, len(reset_in)

    try:
        for _ in range(FORKS):
            half_reset, mask, resets = fork.run(child, end="_exit")
            assert not half_reset, "a handler saw a half-reset child"
            assert not mask, f"signals left blocked in the child: {mask}"
            assert resets == 2
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        sender.kill()
        sender.wait()
    assert not seen_half_reset


def test_a_storm_of_signals(style: str) -> None:
    """Handlers see the child before its reset never, and masks are as they were."""
    outcome = run(storm, style, timeout=100)
    assert outcome.healthy, outcome


def test_storm_breaks_under_os_fork() -> None:
    """There is no reset at all, so that every handler comes before it."""
    assert not run(storm, "raw", timeout=100).healthy


def test_storm_breaks_under_process() -> None:
    """Process resets after os.fork() has returned, with signals unblocked."""
    assert not run(storm, "process-plain", timeout=100).healthy


RAISING = """
import logging, os, signal, sys
import multiprocessing.util

# Registered before forksafe's, so it runs before that in the parent: it holds the parent until the
# signal is there, while it is still blocked.
read, write = os.pipe()
os.register_at_fork(after_in_parent=lambda: os.read(read, 1))
import forksafe

class Stop(BaseException):
    pass

def stop(number, frame):
    raise Stop

signal.signal(signal.SIGUSR1, stop)
parent = os.getpid()
if sys.argv[1] == "hook":
    forksafe.install()
    fork = os.fork
else:
    fork = forksafe.safe_fork

def in_child(_):  # runs in the reset, with signals blocked on both sides, as multiprocessing's
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(parent, signal.SIGUSR1)
    os.write(write, b"..")

in_child.__module__ = "multiprocessing.of_a_test"
multiprocessing.util.register_after_fork(stop, in_child)
try:
    fork()
    for _ in range(1000):  # handlers that are due run here at the latest
        pass
    print("lost")
except Stop:
    print("raised in the child" if os.getpid() != parent else "raised in the parent", flush=True)
if os.getpid() == parent:
    os.wait()
else:
    os._exit(0)
"""


@pytest.mark.parametrize(
    "how",
    [
        "safe_fork",
        pytest.param(
            "hook",
            marks=pytest.mark.skipif(
                PYPY, reason="PyPy has no sigtimedwait: the handler runs, and raises, in the hook"
            ),
        ),
    ],
)
def test_an_exception_of_a_handler_is_not_lost(how: str) -> None:
    """Ctrl-C during a fork is a KeyboardInterrupt behind it, in the parent and in the child."""
    done = script(RAISING, argv=(how,))
    assert sorted(done.stdout.splitlines()) == ["raised in the child", "raised in the parent"], done
    assert done.stderr == ""


ANOTHER_THREAD = """
import functools, os, signal, sys, threading, time
import multiprocessing.util

class Stop(BaseException):
    pass

def stop(number, frame):
    calls.append(number)
    raise Stop

calls, ran = [], []
signal.signal(signal.SIGUSR1, stop)
idle = threading.Event()
thread = threading.Thread(target=idle.wait, daemon=True)
thread.start()
# Registered before forksafe's, so it runs behind that: another thread takes the signal, which the
# forking one blocks, and the handler runs in this one, inside the hooks. In C, so that it runs in
# forksafe's.
os.register_at_fork(
    before=functools.partial(signal.pthread_kill, thread.ident, signal.SIGUSR1)
)
import forksafe

sys.unraisablehook = lambda told: None
if sys.argv[1] == "hook":
    forksafe.install()
    fork = os.fork
else:
    fork = forksafe.safe_fork
multiprocessing.util.register_after_fork(stop, lambda _: ran.append(os.getpid()))
parent = os.getpid()
mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
for number in range(20):
    try:
        fork()
        while os.getpid() == parent and len(calls) <= number:
            time.sleep(0.001)  # the other thread has not taken it yet
    except Stop:
        pass
    if os.getpid() != parent:
        same = signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        os._exit(0 if same and ran == [os.getpid()] else 1)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask, "left blocked"
    assert os.wait()[1] == 0, "the child is not whole"
print("ok")
"""


@pytest.mark.parametrize("how", ["safe_fork", "hook"])
def test_a_signal_that_another_thread_takes_leaves_no_mask_behind(how: str) -> None:
    """Its handler runs inside the hooks, and raises; parent and child are whole nevertheless."""
    done = script(ANOTHER_THREAD, argv=(how,))
    assert done.stdout == "ok\n", done
