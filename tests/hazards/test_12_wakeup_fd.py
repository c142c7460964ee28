"""Row 12: a signal that the child gets wakes, and stops, the child alone."""

from __future__ import annotations

import sys
from typing import Callable

import pytest
from harness import Forker, run, run_plain

SINCE_312 = sys.version_info >= (3, 12)


def shared_socket(fork: Forker) -> None:
    """What any event loop does, asyncio not imported; also from another thread."""
    import os
    import signal
    import socket
    import threading

    here, wakeup = socket.socketpair()
    here.setblocking(False)
    wakeup.setblocking(False)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    signal.set_wakeup_fd(wakeup.fileno())

    def child() -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        return signal.set_wakeup_fd(-1)

    answers = []
    answers.append(fork.run(child))
    thread = threading.Thread(target=lambda: answers.append(fork.run(child)))
    thread.start()
    thread.join()
    assert answers == [-1, -1], "the child has the parent's wakeup descriptor"
    try:
        raise AssertionError(f"the parent was woken: {here.recv(100)!r}")
    except BlockingIOError:
        pass
    os.kill(os.getpid(), signal.SIGUSR1)
    assert here.recv(100) == bytes([signal.SIGUSR1])  # the parent's own goes on working


def stopped_loop(fork: Forker) -> None:
    """The child of a server that handles SIGTERM in its loop can be stopped by SIGTERM."""
    import asyncio
    import os
    import signal
    import time

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stops: list[str] = []
        loop.add_signal_handler(signal.SIGTERM, stops.append, "parent")
        loop.add_signal_handler(signal.SIGUSR1, stops.append, "not to die of")

        def child() -> int:
            os.kill(os.getpid(), signal.SIGUSR1)
            return os.getpid()

        def waits() -> None:
            os.write(ready, b".")
            time.sleep(30)

        assert fork.run(child, end="_exit") != os.getpid()
        waiting, ready = os.pipe()
        process = fork(waits, end="_exit")
        os.read(waiting, 1)
        os.kill(process.pid, signal.SIGTERM)
        assert process.join() == -signal.SIGTERM
        await asyncio.sleep(0.05)  # time for a signal to come, which must not
        assert stops == [], stops
        os.kill(os.getpid(), signal.SIGTERM)
        while not stops:
            await asyncio.sleep(0.01)
        assert stops == ["parent"]

    asyncio.run(main())


def interrupted_child(fork: Forker) -> None:
    """Ctrl-C stops the child of ``asyncio.run()`` at once, and one in its own ``asyncio.run()``."""
    import asyncio
    import os
    import signal
    import time

    async def main() -> None:
        def plain() -> str:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
            except KeyboardInterrupt:
                return "interrupted"
            return "went on"

        def nested() -> str:
            async def inner() -> str:
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    return "cancelled"
                return "went on"

            try:
                return asyncio.run(inner())
            except KeyboardInterrupt:
                return "interrupted"

        assert fork.run(plain, end="_exit") == "interrupted"
        assert fork.run(nested, end="_exit") in ("interrupted", "cancelled")

    asyncio.run(main())


def loop_for_the_children(fork: Forker) -> None:
    """A loop set up before the fork, handlers and all, is run in each child."""
    import asyncio
    import os
    import signal

    loop = asyncio.new_event_loop()
    got: list[int] = []

    def on_signal(number: int) -> None:
        got.append(number)
        if len(got) == 3:
            loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        loop.add_signal_handler(number, on_signal, int(number))

    def child() -> list[int]:
        loop.call_soon(os.write, ready, b".")
        loop.run_forever()
        loop.close()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        return sorted(got)

    waiting, ready = os.pipe()
    children = [fork(child, end="_exit") for _ in range(2)]
    for _ in children:
        assert os.read(waiting, 1)
    numbers = sorted([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    for process in children:
        for number in numbers:
            os.kill(process.pid, number)
        assert process.result() == numbers
        assert process.join() == 0
    assert got == []
    loop.call_soon(os.kill, os.getpid(), signal.SIGTERM)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
    loop.run_forever()
    assert sorted(got) == numbers


def trio_program(fork: Forker) -> None:
    """A signal in the child of a trio program does not wake the parent's loop."""
    import os
    import signal

    import trio

    async def main() -> None:
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        number = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(number)
        assert number != -1

        def child() -> int:
            os.kill(os.getpid(), signal.SIGUSR1)
            return signal.set_wakeup_fd(-1)

        assert fork.run(child, end="_exit") == -1
        woken = trio._core._run.GLOBAL_RUN_CONTEXT.runner.entry_queue.wakeup.wakeup_sock
        try:
            raise AssertionError(f"the parent was woken: {woken.recv(100)!r}")
        except BlockingIOError:
            pass

    trio.run(main)


def test_no_signal_of_the_child_reaches_the_parents_loop(style: str) -> None:
    outcome = run(shared_socket, style)
    assert outcome.healthy, outcome


def test_the_child_of_a_loop_that_handles_sigterm_can_be_stopped(style: str) -> None:
    outcome = run(stopped_loop, style)
    assert outcome.healthy, outcome


def test_ctrl_c_stops_the_child_of_a_running_loop(style: str) -> None:
    outcome = run(interrupted_child, style)
    assert outcome.healthy, outcome


def test_a_loop_set_up_before_the_fork_handles_signals_in_each_child(style: str) -> None:
    outcome = run(loop_for_the_children, style)
    assert outcome.healthy, outcome


def test_trio(style: str) -> None:
    pytest.importorskip("trio", reason="needs trio: pip install trio")
    outcome = run(trio_program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("plain", ["raw", "process-plain"])
@pytest.mark.parametrize(
    "program",
    [
        shared_socket,
        stopped_loop,
        pytest.param(
            interrupted_child,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11), reason="asyncio.run() left SIGINT alone before 3.11"
            ),
        ),
        loop_for_the_children,
    ],
)
def test_breaks_without_forksafe(program: Callable[[Forker], None], plain: str) -> None:
    """The parent's loop gets the child's signals (to 3.11), or nobody does (from 3.12 on)."""
    outcome = run_plain(program, plain)
    assert outcome.shows("hung", "the child has the parent's wakeup descriptor"), outcome
