"""Children that are about to exec are left alone, whoever forks them.

They take no reference at a manager (a proxy's after-fork callback does), and lose no signal. Run
with the real libraries; the control is a child that goes on, which does take one.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Callable

import pytest
from harness import Forker, run

TIMES = 3


def _manager() -> tuple[Any, Callable[[], int]]:
    """Return a proxy that is in use, and what tells how many references its manager counts."""
    import multiprocessing

    manager = multiprocessing.get_context("fork").Manager()
    proxy = manager.dict()
    proxy[1] = 1

    def references() -> int:
        text: str = manager._debug_info()  # type: ignore[attr-defined] # the only one that tells
        return int(text.split("refcount=")[1].split()[0])

    return proxy, references


def _leaves_nothing(spawn: Callable[[], Any]) -> None:
    proxy, references = _manager()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert references() == 2, "the control: this child was reset, and took a reference"
    for _ in range(TIMES):
        spawn()
    assert references() == 2, "a child that execs has left a reference at the manager"
    assert proxy[1] == 1


def spawnv(fork: Forker) -> None:
    _leaves_nothing(lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]))


def pty_spawn(fork: Forker) -> None:
    import pty

    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    _leaves_nothing(lambda: pty.spawn(["/bin/true"]))


def ptyprocess(fork: Forker) -> None:
    module = importlib.import_module("ptyprocess")
    _leaves_nothing(lambda: module.PtyProcess.spawn(["/bin/true"]).wait())


def pexpect(fork: Forker) -> None:
    module = importlib.import_module("pexpect")
    _leaves_nothing(lambda: module.spawn("/bin/true").wait())


def billiard_spawn(fork: Forker) -> None:
    billiard = importlib.import_module("billiard")

    def spawn() -> None:
        process = billiard.get_context("spawn").Process(target=print)
        process.start()
        process.join()
        assert process.exitcode == 0

    _leaves_nothing(spawn)


def eventlet(fork: Forker) -> None:
    subprocess = importlib.import_module("eventlet.green.subprocess")
    _leaves_nothing(lambda: subprocess.Popen(["/bin/true"], preexec_fn=int).wait())


def twisted(fork: Forker) -> None:
    reactor: Any = importlib.import_module("twisted.internet.reactor")
    protocol: Any = importlib.import_module("twisted.internet.protocol").ProcessProtocol

    class Protocol(protocol):  # type: ignore[misc] # a class of a library without types
        def processEnded(self, reason: Any) -> None:
            reactor.crash()

    def spawn() -> None:
        # A pty keeps it from posix_spawn().
        reactor.spawnProcess(Protocol(), "/bin/true", ["true"], usePTY=True)
        reactor.run()

    _leaves_nothing(spawn)


def _uvloop(spawn: Callable[[Any], Any]) -> None:
    import asyncio

    loop = importlib.import_module("uvloop").new_event_loop()
    asyncio.set_event_loop(loop)
    _leaves_nothing(lambda: loop.run_until_complete(spawn(loop)))


def uvloop_exec(fork: Forker) -> None:
    import asyncio

    async def spawn(loop: Any) -> None:
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0

    _uvloop(spawn)


def uvloop_shell(fork: Forker) -> None:
    import asyncio

    async def spawn(loop: Any) -> None:
        process = await asyncio.create_subprocess_shell("true")
        assert await process.wait() == 0

    _uvloop(spawn)


def uvloop_protocol(fork: Forker) -> None:
    """By the loop's own method, called by the program."""
    import asyncio

    async def spawn(loop: Any) -> None:
        over = asyncio.Event()

        class Protocol(asyncio.SubprocessProtocol):
            def process_exited(self) -> None:
                over.set()

        await loop.subprocess_exec(Protocol, "/bin/true")
        await over.wait()

    _uvloop(spawn)


def uvloop_thread_manager(fork: Forker) -> None:
    """The manager is served by a thread of this very process, which a reset child waits for."""
    import asyncio
    import threading
    from multiprocessing.managers import SyncManager

    server = SyncManager(authkey=b"x").get_server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    manager = SyncManager(address=server.address, authkey=b"x")
    manager.connect()
    proxy = manager.dict()
    proxy[1] = 1
    loop = importlib.import_module("uvloop").new_event_loop()
    asyncio.set_event_loop(loop)

    async def spawn() -> None:
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0

    loop.run_until_complete(asyncio.wait_for(spawn(), 20))
    os._exit(0)


@pytest.mark.parametrize(
    ("program", "package"),
    [
        (spawnv, "os"),
        (pty_spawn, "pty"),
        (ptyprocess, "ptyprocess"),
        (pexpect, "pexpect"),
        (billiard_spawn, "billiard"),
        (eventlet, "eventlet"),
        (twisted, "twisted"),
        (uvloop_exec, "uvloop"),
        (uvloop_shell, "uvloop"),
        (uvloop_protocol, "uvloop"),
        (uvloop_thread_manager, "uvloop"),
    ],
)
def test_a_child_that_execs_is_left_alone(program: Callable[[Forker], None], package: str) -> None:
    """Also where os.fork is safe_fork, under the hook."""
    pytest.importorskip(package)
    outcome = run(program, "hook")
    assert outcome.healthy, outcome


def goes_on(fork: Forker) -> None:
    """What only looks like it: the program forks inside of a function by that name."""

    def _spawnvef() -> int:
        return os.fork()

    _, references = _manager()
    pid = _spawnvef()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert references() == 2, "a child that goes on was not reset"


def handler_in_between(fork: Forker) -> None:
    """A signal handler forks while pty.spawn() is about to: its child goes on."""
    import pty
    import signal

    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    _, references = _manager()

    def handler(number: int, frame: object) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    def interrupt(event: str, arguments: object) -> None:
        if event == "pty.spawn":
            signal.raise_signal(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, handler)
    sys.addaudithook(interrupt)
    pty.spawn(["/bin/true"])
    assert references() == 2, "a child that goes on was not reset"


@pytest.mark.parametrize("program", [goes_on, handler_in_between])
def test_a_child_that_goes_on_is_reset(program: Callable[[Forker], None]) -> None:
    """Only code objects count, and only frames that fork on behalf of their callers."""
    outcome = run(program, "hook")
    assert outcome.healthy, outcome
