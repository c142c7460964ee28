"""Row 13: an asyncio loop made before the fork is a loop of each process, of its own.

No program sets a timer where it waits for a wakeup: the timer would wake the loop as well. What is
lost shows as a hang, which `run` ends.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from harness import Forker, run, run_plain

SELECTORS = ("PollSelector", "SelectSelector")  # beside the default one


def new_loop(selector: str = "") -> Any:
    import asyncio
    import os
    import selectors

    return asyncio.SelectorEventLoop(
        getattr(selectors, selector or os.environ.get("SELECTOR", "DefaultSelector"))()
    )


def slowly() -> int:
    import time

    time.sleep(0.2)  # so that the loop is waiting by then, and its self-pipe is needed
    return 42


def readers(fork: Forker) -> None:
    """A child of a running loop takes readers off it and adds its own; the parent hears on."""
    import asyncio
    import os

    loop = new_loop()

    async def main() -> None:
        read, write = os.pipe()
        heard = asyncio.Event()
        loop.add_reader(read, heard.set)

        def child() -> bool:
            removed: bool = loop.remove_reader(read)
            loop.remove_reader(loop._ssock.fileno())
            own, _ = os.pipe()
            loop.add_reader(own, heard.set)
            return removed

        assert fork.run(child, end="_exit") is True
        os.write(write, b"x")
        await heard.wait()
        loop.remove_reader(read)
        assert await loop.run_in_executor(None, slowly) == 42  # by way of the self-pipe

    loop.run_until_complete(main())


def closed_in_the_child(fork: Forker) -> None:
    """A child closes an inherited loop, which is current: the parent's goes on."""
    import asyncio
    import os

    loop = new_loop()
    asyncio.set_event_loop(loop)
    read, write = os.pipe()
    heard = asyncio.Event()
    loop.add_reader(read, heard.set)

    def child() -> bool:
        loop.close()
        return bool(loop.is_closed())

    assert fork.run(child) is True

    async def main() -> int:
        os.write(write, b"x")
        await heard.wait()
        loop.remove_reader(read)
        return int(await loop.run_in_executor(None, slowly))

    assert loop.run_until_complete(main()) == 42


def dropped_in_the_child(fork: Forker) -> None:
    """A loop that only asyncio refers to is dropped by the fork, and collected in the child."""
    import asyncio
    import gc

    asyncio.set_event_loop(new_loop())
    policy = vars(asyncio.events)["_event_loop_policy"]
    fork.run(gc.collect, end="_exit")
    loop = policy._local._loop

    async def main() -> int:
        return int(await loop.run_in_executor(None, slowly))

    assert loop.run_until_complete(main()) == 42


def unwound(fork: Forker) -> None:
    """A child ends by sys.exit() in a coroutine: everything asyncio has to tidy up is tidied."""
    import asyncio
    import os

    async def server() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        served = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = served.sockets[0].getsockname()[1]
        parent = os.getpid()
        try:
            assert fork.run(lambda: 42) == 42
        finally:
            if os.getpid() != parent:
                served.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        served.close()

    async def main() -> None:
        await asyncio.wait_for(server(), 20)

    try:
        asyncio.run(main())
    except SystemExit as exc:  # the child's
        os._exit(int(bool(exc.code)))


def under_load(fork: Forker) -> None:
    """A loop in a variable, made before the fork, runs in three children and the parent at once."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    loop = new_loop()
    loop.run_until_complete(asyncio.sleep(0))

    def work() -> int:
        loop.set_default_executor(ThreadPoolExecutor(2))
        count = 0

        async def main() -> None:
            nonlocal count
            for number in range(400):
                assert await loop.run_in_executor(None, lambda n=number: n) == number
                count += 1

        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        return count

    children = [fork(work) for _ in range(3)]
    assert work() == 400
    assert [child.result(25) for child in children] == [400, 400, 400]
    assert [child.join() for child in children] == [0, 0, 0]


def registrations(fork: Forker) -> None:
    """A server and readers set up before the fork work in each child, and children of children."""
    import asyncio
    import os
    import socket

    loop = new_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    loop.call_soon(lambda: None)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d " % os.getpid() + await reader.readline())
        await writer.drain()
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(echo, sock=listener))

    def serve_one() -> int:
        async def ask() -> int:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"hello\n")
            pid, text = (await reader.readline()).split()
            writer.close()
            assert text == b"hello"
            return int(pid)

        assert loop.run_until_complete(asyncio.wait_for(ask(), 5)) == os.getpid()
        server.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        return os.getpid()

    def child() -> int:
        return int(fork.run(serve_one, end="_exit"))

    assert len({fork.run(child, end="_exit"), fork.run(serve_one, end="_exit")}) == 2
    serve_one()


def other_loops(fork: Forker) -> None:
    """asyncio.run() works in a child forked inside a running loop: subprocesses, executors."""
    import asyncio
    import sys

    async def main() -> None:
        async def inner() -> int:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-c", "raise SystemExit(3)"
            )
            status = await process.wait()
            loop = asyncio.get_running_loop()
            return status + await loop.run_in_executor(None, lambda: 39)

        assert fork.run(lambda: asyncio.run(inner()), end="_exit") == 42
        assert await inner() == 42

    asyncio.run(main())


def forked_by_a_thread(fork: Forker) -> None:
    """The loop runs in the main thread, and one of its executor's threads forks."""
    import asyncio
    import os

    loop = new_loop()

    async def main() -> None:
        read, write = os.pipe()
        heard = asyncio.Event()
        loop.add_reader(read, heard.set)

        def child() -> int:
            loop.remove_reader(read)

            async def inner() -> int:
                await asyncio.sleep(0)
                return 42

            return asyncio.run(inner())

        assert await loop.run_in_executor(None, lambda: fork.run(child, end="_exit")) == 42
        os.write(write, b"x")
        await heard.wait()

    loop.run_until_complete(main())


def descriptors(fork: Forker) -> None:
    """A chain of children opens nothing that stays open, and nothing that an exec would inherit."""
    import asyncio
    import os

    loops = [new_loop(), new_loop()]
    asyncio.set_event_loop(loops[0])

    def state() -> object:
        for loop in loops:
            loop.remove_reader(10_000)
        kinds = []
        for name in os.listdir("/proc/self/fd"):
            try:
                kinds.append(os.readlink("/proc/self/fd/" + name).partition("[")[2])
            except FileNotFoundError:
                pass  # the directory itself
        pipes = [sock.fileno() for loop in loops for sock in (loop._ssock, loop._csock)]
        epolls = [loop._selector.fileno() for loop in loops]
        assert not any(os.get_inheritable(number) for number in pipes + epolls)
        assert not any(os.get_blocking(number) for number in pipes)
        return pipes, epolls, kinds.count("eventpoll]"), len(os.listdir("/proc/self/fd")) < 64

    def child() -> object:
        before = sockets()
        return state(), [one == other for one, other in zip(before, sockets())]

    def sockets() -> list[str]:
        return [os.readlink(f"/proc/self/fd/{loop._ssock.fileno()}") for loop in loops]

    def grandchild() -> object:
        return fork.run(child, end="_exit")

    mine = sockets()
    here = state()
    assert sockets() == mine  # nothing changes in the parent
    seen, same = fork.run(child, end="_exit")
    assert seen == here
    assert same == [True, False]  # at once for the current loop, at its first use for the other
    assert fork.run(grandchild, end="_exit")[0] == here
    assert sockets() == mine


def left_over(fork: Forker) -> None:
    """A child that exits with inherited loops unclosed says nothing, as the parent does."""
    import gc
    import os

    globals()["kept"] = new_loop()
    new_loop()  # garbage, with a cycle or without
    read, write = os.pipe()
    stderr = os.dup(2)

    def child() -> None:
        os.dup2(write, 2)
        gc.collect()

    fork.run(child)
    os.dup2(stderr, 2)
    os.close(write)
    said = os.read(read, 10_000).decode()
    assert said == "", said


def closed_readers(fork: Forker) -> None:
    """Readers whose descriptors were closed behind the loop's back do not keep others from it."""
    import asyncio
    import os

    loop = new_loop()
    asyncio.set_event_loop(loop)
    heard: list[str] = []
    gone, replaced, read = (os.pipe() for _ in range(3))
    loop.add_reader(gone[0], heard.append, "gone")
    loop.add_reader(replaced[0], heard.append, "replaced")

    def hear() -> None:
        heard.append("reader")
        loop.stop()

    loop.add_reader(read[0], hear)
    loop.add_writer(os.pipe()[1], heard.append, "writer")
    os.dup2(os.open(__file__, os.O_RDONLY), replaced[0])  # an epoll takes no plain file
    os.close(gone[0])

    def child() -> list[str]:
        os.write(read[1], b"x")
        loop.run_forever()
        return sorted(set(heard))

    assert fork.run(child, end="_exit") == ["reader", "writer"]


def no_descriptors(fork: Forker) -> None:
    """Where no descriptor is left the child says so, and the loop is healed when it is used."""
    import asyncio
    import errno
    import os
    import resource

    import forksafe

    loop = new_loop()
    asyncio.set_event_loop(loop)
    assert forksafe.last_reset() is None  # loads the steps, while files can be opened
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def child() -> list[object]:
        seen: list[object] = [(forksafe.last_reset() or {})["event loops"]]
        try:
            loop.remove_reader(10_000)
        except OSError as exc:
            seen.append(exc.errno)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        seen.append(loop.run_until_complete(asyncio.sleep(0, 42)))
        loop.close()
        return seen

    def limited() -> int:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        kept = [os.dup(0) for _ in range(highest)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(kept) + 1, limits[1]))
        return forksafe.safe_fork()

    read, write = os.pipe()
    pid = limited()
    if pid == 0:
        os.write(write, repr(child()).encode())
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    os.close(write)
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert os.read(read, 10_000).decode() == repr([f"failed: {error!r}", errno.EMFILE, 42])
    assert os.waitpid(pid, 0)[1] == 0

    async def main() -> int:
        return int(await loop.run_in_executor(None, slowly))

    assert loop.run_until_complete(main()) == 42


PROGRAMS = {
    function.__name__: function
    for function in (
        readers,
        closed_in_the_child,
        dropped_in_the_child,
        under_load,
        registrations,
        other_loops,
        forked_by_a_thread,
        descriptors,
        left_over,
        closed_readers,
    )
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_works(program: str, style: str) -> None:
    outcome = run(PROGRAMS[program], style)
    assert outcome.healthy, outcome


# Leaving the task raises that its loop is not the running one, which none can be after a fork: so
# asyncio itself loses the SystemExit, and the child goes on with the loop.
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio itself loses the SystemExit")
@pytest.mark.parametrize("style", ["safe_fork", "hook"])  # the others' children unwind nothing
def test_a_child_may_leave_a_coroutine_by_sys_exit(style: str) -> None:
    outcome = run(unwound, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("program", ["closed_in_the_child", "under_load", "registrations"])
def test_works_with_other_selectors(program: str, selector: str) -> None:
    outcome = run(PROGRAMS[program], "safe_fork", env={"SELECTOR": selector})
    assert outcome.healthy, outcome


def test_no_descriptor_left() -> None:
    outcome = run(no_descriptors, "safe_fork")
    assert outcome.healthy, outcome


@pytest.mark.parametrize("plain", ["raw", "process-plain"])
@pytest.mark.parametrize(
    "program",
    [
        "readers",
        "closed_in_the_child",
        pytest.param(
            "dropped_in_the_child",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 12), reason="asyncio forgets its loops since 3.12"
            ),
        ),
        "forked_by_a_thread",
    ],
)
def test_breaks_without_forksafe(program: str, plain: str) -> None:
    """With one epoll for both, the child's changes to it make the parent deaf."""
    outcome = run_plain(PROGRAMS[program], plain)
    assert outcome.shows("hung"), outcome


def test_wakeups_are_lost_without_forksafe() -> None:
    """With one self-pipe for all, whoever reads first takes the wakeups of the others."""
    outcome = run_plain(under_load, "raw")
    assert outcome.shows("hung"), outcome
