"""`forksafe.after_fork_in_child`, for children whose fork ran no hook, or ran it switched off."""

from __future__ import annotations

import os
from typing import Callable

import pytest
from harness import PYPY, WITHOUT_GIL, Forker, run
from witness import Start, Witness, by

import forksafe


def by_hand(fork: Start) -> Start:
    """Return a start whose child calls `forksafe.after_fork_in_child`, more than once."""

    def start(target: Callable[[], object]) -> None:
        def child() -> None:
            forksafe.after_fork_in_child()
            assert forksafe.last_reset() is not None
            forksafe.after_fork_in_child()
            target()
            forksafe.after_fork_in_child()

        fork(child)

    return start


def hook_off(fork: Forker) -> None:
    Witness().see(by_hand(by(os.fork)))


def hook_turned_off(fork: Forker) -> None:
    forksafe.install()
    forksafe.uninstall()
    witness = Witness()
    witness.see(by_hand(by(os.fork)))
    witness.see(by_hand(by(forksafe.safe_fork)))


def fork_in_c(fork: Forker) -> None:
    import ctypes

    libc = ctypes.CDLL(None)
    witness = Witness()
    witness.see(by_hand(by(libc.fork)))
    forksafe.install()
    witness.see(by_hand(by(libc.fork)))


def in_a_child_of_the_child(fork: Forker) -> None:
    witness = Witness()
    hand = by_hand(by(os.fork))

    def start(target: Callable[[], object]) -> None:
        hand(lambda: hand(target))

    witness.see(start, depth=2)


def recurring_pid(fork: Forker) -> None:
    """A descendant that the kernel gives the pid that its forebear had.

    No managers: a ``Finalize`` made under the patch would not know its own process again.
    """
    pid = os.getpid()

    def namesake_of_the_parent() -> int:
        child = os.fork()
        if child == 0:
            os.getpid = lambda: pid
        return child

    Witness(managers=False).see(by_hand(by(namesake_of_the_parent)))


def hooks_of_the_child_alone(fork: Forker) -> None:
    """A fork made in C that runs what is for the child, as uWSGI's does, and nothing before."""
    import _imp
    import ctypes

    c = ctypes.PyDLL(None)

    def fork_in_c() -> int:
        _imp.acquire_lock()  # which the child's half releases
        pid: int = c.fork()
        if pid == 0:
            c.PyOS_AfterFork_Child()
        else:
            _imp.release_lock()
        return pid

    forksafe.install()
    Witness().see(by(fork_in_c))


def never_forked(fork: Forker) -> None:
    witness = Witness()
    forksafe.after_fork_in_child()
    assert witness.calls == []
    assert forksafe.last_reset() is None


PROGRAMS = [
    hook_off,
    hook_turned_off,
    fork_in_c,
    pytest.param(
        hooks_of_the_child_alone,
        # Without a GIL the half before the fork takes a mutex, which only C can take.
        marks=pytest.mark.skipif(PYPY or WITHOUT_GIL, reason="CPython's, with a GIL"),
    ),
    in_a_child_of_the_child,
    recurring_pid,
    never_forked,
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_resets_once(program: Callable[[Forker], None]) -> None:
    """In each child that was not reset, once; elsewhere not at all."""
    outcome = run(program, "raw")
    assert outcome.healthy, outcome


def beside_a_thread(fork: Forker) -> None:
    import ctypes
    import threading
    import time

    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    read, write = os.pipe()
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        forksafe.after_fork_in_child()
        found = threading.enumerate() == [threading.current_thread()] and not thread.is_alive()

        def work() -> None:
            time.sleep(0.1)
            os.write(write, b"found" if found else b"lost")

        threading.Thread(target=work).start()
        # As the interpreter does first at its end. The rest hangs on 3.15, which stops all threads.
        vars(threading)["_shutdown"]()
        os._exit(0)
    os.close(write)
    assert os.read(read, 9) == b"found", "the child lists threads that it has not"
    assert os.waitpid(pid, 0)[1] == 0
    go.set()


@pytest.mark.skipif(PYPY, reason="on PyPy no fork comes from C that leaves its interpreter whole")
def test_the_parents_threads_are_gone() -> None:
    """At its end the child joins its own threads, and no other."""
    outcome = run(beside_a_thread, "raw")
    assert outcome.healthy, outcome


def with_signals(fork: Forker) -> None:
    import signal
    from multiprocessing.util import register_after_fork

    def blocked() -> bool:
        return signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    masks: list[bool] = []

    def own(_: object) -> None:
        masks.append(blocked())

    own.__module__ = "multiprocessing.of_a_test"  # its entries are part of the reset
    register_after_fork(own, own)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    pid = os.fork()
    if pid == 0:
        forksafe.after_fork_in_child()
        os._exit(0 if [*masks, blocked()] == [True, False] else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_no_handler_sees_a_half_reset_child() -> None:
    """Signals are blocked meanwhile."""
    outcome = run(with_signals, "raw")
    assert outcome.healthy, outcome
