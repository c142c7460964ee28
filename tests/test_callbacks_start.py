"""What a callback starts takes signals as it would anywhere: a thread, a process, a command.

Callbacks are ordinary code of the program, in a whole process, under the program's own signal mask.
What they start inherits it. So it is compared in every child, and SIGTERM must end what was started
there.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Callable

import pytest
from harness import Forker, run
from witness import Start, by, by_forked, by_process, within

import forksafe

COMBINATIONS: dict[str, Callable[[], Start]] = {}


def combination(function: Callable[[], Start]) -> Callable[[], Start]:
    """Have a test for what `function` returns: a way to start a child."""
    COMBINATIONS[function.__name__] = function
    return function


def blocked() -> set[int]:
    """Return the signal mask of this thread."""
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


class Starter:
    """An object of the program's, whose callback starts all kinds of things in the child.

    Attributes:
        masks: What was blocked where, in this process and those that led to it.
        failures: What the callback raised, which goes nowhere else.
    """

    def __init__(self) -> None:
        from multiprocessing.util import register_after_fork

        self.masks: list[tuple[str, set[int]]] = []
        self.failures: list[BaseException] = []
        self._busy = False  # what a callback forks has callbacks, too
        register_after_fork(self, Starter.after_fork)

    def after_fork(self) -> None:
        if self._busy:
            return
        self._busy = True
        self._note("in the callback")
        for start in (self._signal, self._thread, self._command, self._fork, self._process):
            try:
                start()
            except Exception as exc:
                self.failures.append(exc)
        self._note("in the callback, at its end")
        self._busy = False

    def _note(self, where: str) -> None:
        self.masks.append((where, blocked()))

    def _signal(self) -> None:
        taken: list[int] = []
        usual = signal.signal(signal.SIGUSR1, lambda number, frame: taken.append(number))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert taken, "a signal that the callback sends itself has to wait"
        signal.signal(signal.SIGUSR1, usual)

    def _thread(self) -> None:
        import threading

        def body() -> None:
            self._note("in a thread")
            self._command()

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()

    def _command(self) -> None:
        import subprocess

        command = subprocess.Popen(["sleep", "60"])
        command.terminate()
        try:
            assert command.wait(5) == -signal.SIGTERM
        except subprocess.TimeoutExpired:
            command.kill()
            raise AssertionError("SIGTERM does not end a command") from None

    def _fork(self) -> None:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, bytes(sorted(blocked())))
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(write)
        self.masks.append(("in a child", set(os.read(read, 100))))

    def _process(self) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()

        def body() -> None:
            theirs.send(blocked())
            signal.pause()

        process = context.Process(target=body)
        process.start()
        self.masks.append(("in a Process", ours.recv()))
        process.terminate()
        process.join(5)
        code = process.exitcode
        process.kill()
        assert code == -signal.SIGTERM, "SIGTERM does not end a Process"


def see(start: Start) -> None:
    """Start children while the program blocks nothing, and while it blocks one signal."""
    for mine in (set(), {int(signal.SIGUSR2)}):
        signal.pthread_sigmask(signal.SIG_SETMASK, mine)
        starter = Starter()

        def child(starter: Starter = starter, mine: set[int] = mine) -> None:
            assert starter.masks, "the callback did not run"
            wrong = [f"blocked {where}: {mask}" for where, mask in starter.masks if mask != mine]
            assert not wrong and not starter.failures, f"{wrong} {starter.failures}"
            assert blocked() == mine

        start(child)
        assert blocked() == mine
        assert not starter.masks, "the callback ran in the parent"


@combination
def process_without_forksafe() -> Start:
    """Which is the measure: there it holds."""
    return by_process(multiprocessing)


@combination
def safe_fork() -> Start:
    return by(forksafe.safe_fork)


@combination
def forked() -> Start:
    return by_forked


@combination
def hook() -> Start:
    forksafe.install()
    return by(os.fork)


@combination
def hook_and_safe_fork() -> Start:
    forksafe.install()
    return by(forksafe.safe_fork)


@combination
def hook_and_forked() -> Start:
    forksafe.install()
    return by_forked


@combination
def os_fork_replaced() -> Start:
    os.fork = forksafe.safe_fork
    return by(os.fork)


@combination
def process_under_the_hook() -> Start:
    forksafe.install()
    return by_process(multiprocessing)


@combination
def process_with_os_fork_replaced() -> Start:
    os.fork = forksafe.safe_fork
    return by_process(multiprocessing)


@combination
def after_fork_in_child() -> Start:
    return _by_hand(os.fork)


@combination
def after_fork_in_child_of_a_fork_in_c() -> Start:
    import ctypes

    return _by_hand(ctypes.CDLL(None).fork)


def _by_hand(fork: Callable[[], int]) -> Start:
    def start(target: Callable[[], object]) -> None:
        def child() -> None:
            forksafe.after_fork_in_child()
            target()

        by(fork)(child)

    return start


@combination
def from_a_thread() -> Start:
    import threading
    import traceback

    forksafe.install()

    def start(target: Callable[[], object]) -> None:
        def child() -> None:
            try:
                target()
            except BaseException:
                traceback.print_exc()
                os._exit(1)

        def body() -> None:
            try:
                by(os.fork, os._exit)(child)
                ended_well.append(True)
            except AssertionError:
                traceback.print_exc()

        ended_well: list[bool] = []
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        assert ended_well

    return start


@combination
def in_a_signal_handler() -> Start:
    forksafe.install()

    def start(target: Callable[[], object]) -> None:
        usual = signal.signal(signal.SIGHUP, lambda number, frame: by(os.fork)(target))
        os.kill(os.getpid(), signal.SIGHUP)
        signal.signal(signal.SIGHUP, usual)

    return start


@combination
def fork_of_a_fork() -> Start:
    forksafe.install()
    return within(by(os.fork), by(forksafe.safe_fork))


@combination
def fork_of_a_process() -> Start:
    forksafe.install()
    return within(by_process(multiprocessing), by(os.fork))


def program(fork: Forker, name: str) -> None:
    see(COMBINATIONS[name]())


@pytest.mark.parametrize("name", COMBINATIONS)
def test_it_takes_signals(name: str) -> None:
    """With the mask of the program, in every process that is on the way."""
    outcome = run(program, "raw", name)
    assert outcome.healthy, outcome


def with_signals_blocked(fork: Forker) -> None:
    """Run the callbacks as the steps run: with signals blocked."""
    from multiprocessing import util

    def start(target: Callable[[], object]) -> None:
        def child() -> None:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
            util._run_after_forkers()  # type: ignore[attr-defined] # private
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            target()

        by(os.fork)(child)

    see(start)


def test_is_noticed_where_signals_are_blocked() -> None:
    """In the callback, in all that it starts, and by who is to be ended."""
    outcome = run(with_signals_blocked, "raw")
    mask = {int(signal.SIGUSR1), int(signal.SIGTERM)}
    for fault in (
        *(f"blocked in the callback: {mask}", f"blocked in a thread: {mask}"),
        *(f"blocked in a child: {mask}", f"blocked in a Process: {mask}"),
        *("SIGTERM does not end a command", "SIGTERM does not end a Process"),
        "a signal that the callback sends itself has to wait",
    ):
        assert outcome.shows(fault), outcome
