"""Row 13: loops that are not asyncio's own, and what the child tells of any loop."""

from __future__ import annotations

from typing import Any

import pytest
from harness import PYPY, Forker, run


def told(fork: Forker) -> None:
    """last_reset() tells what became of the loops, also where none is running or current."""
    import asyncio

    import forksafe

    def child() -> str:
        return (forksafe.last_reset() or {})["event loops"]

    assert fork.run(child, end="_exit") == "not needed"

    async def main() -> None:
        assert fork.run(child, end="_exit") == "done"

    asyncio.run(main())


def unknown_selector(fork: Forker) -> None:
    """A selector of somebody else's is left alone, and told."""
    import asyncio
    import selectors

    import forksafe

    class Foreign(selectors.BaseSelector):
        def __init__(self) -> None:
            self.wrapped = selectors.PollSelector()

        def register(self, *args: Any, **more: Any) -> Any:
            return self.wrapped.register(*args, **more)

        def unregister(self, *args: Any, **more: Any) -> Any:
            return self.wrapped.unregister(*args, **more)

        def modify(self, *args: Any, **more: Any) -> Any:
            return self.wrapped.modify(*args, **more)

        def select(self, timeout: float | None = None) -> Any:
            return self.wrapped.select(timeout)

        def get_map(self) -> Any:
            return self.wrapped.get_map()

    loop = asyncio.SelectorEventLoop(Foreign())
    asyncio.set_event_loop(loop)

    def child() -> str:
        assert loop.run_until_complete(asyncio.sleep(0, 42)) == 42
        return (forksafe.last_reset() or {})["event loops"]

    assert fork.run(child, end="_exit") == "unknown layout: Foreign has no _fd_to_key"


def uvloop_program(fork: Forker) -> None:
    """The running loop is uvloop's: left alone, and told; loops made in the child work."""
    import asyncio

    import uvloop

    async def main() -> None:
        def child() -> tuple[int, str]:
            async def inner() -> int:
                process = await asyncio.create_subprocess_exec("true")
                return 42 + await process.wait()

            loop = uvloop.new_event_loop()
            assert loop.run_until_complete(asyncio.sleep(0, 42)) == 42
            loop.close()
            import forksafe

            return asyncio.run(inner()), (forksafe.last_reset() or {})["event loops"]

        answer, told = fork.run(child, end="_exit")
        assert answer == 42
        assert told == "left alone: a loop that is not asyncio's own"
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, lambda: 42) == 42

    uvloop.run(main())


def tornado_program(fork: Forker) -> None:
    """A tornado loop with a server, set up before the fork, serves in each child."""
    import asyncio
    import os

    from tornado.httpclient import AsyncHTTPClient
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop
    from tornado.netutil import bind_sockets
    from tornado.web import Application, RequestHandler

    class Pid(RequestHandler):  # type: ignore[misc] # its types are not everywhere
        def get(self) -> None:
            self.write(str(os.getpid()))

    loop = IOLoop()
    (listener,) = bind_sockets(0, "127.0.0.1")

    def start() -> HTTPServer:
        server = HTTPServer(Application([("/", Pid)]))
        server.add_sockets([listener])
        return server

    async def begin() -> HTTPServer:
        return start()

    server = loop.run_sync(begin)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

    def serve_one() -> int:
        async def ask() -> int:
            response = await AsyncHTTPClient(force_instance=True).fetch(url)
            return int(response.body)

        pid: int = loop.run_sync(ask, timeout=5)
        assert pid == os.getpid()
        return pid

    assert len({fork.run(serve_one, end="_exit"), fork.run(serve_one, end="_exit")}) == 2
    serve_one()
    server.stop()
    assert asyncio is not None


def test_last_reset_tells_that_loops_are_whole(style: str) -> None:
    """A Python whose asyncio looks different fails here."""
    outcome = run(told, style)
    assert outcome.healthy, outcome


def test_an_unknown_selector_is_left_alone(style: str) -> None:
    outcome = run(unknown_selector, style)
    assert outcome.healthy, outcome


@pytest.mark.skipif(PYPY, reason="uvloop is for CPython")
def test_uvloop_is_left_alone(style: str) -> None:
    pytest.importorskip("uvloop", reason="needs uvloop: pip install uvloop")
    outcome = run(uvloop_program, style)
    assert outcome.healthy, outcome
    assert "Exception ignored" not in outcome.output, "each child tells it on stderr"


def test_tornado(style: str) -> None:
    pytest.importorskip("tornado", reason="needs tornado: pip install tornado")
    outcome = run(tornado_program, style)
    assert outcome.healthy, outcome
