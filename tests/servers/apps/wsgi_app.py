"""A WSGI application whose module makes things that processes share, and things that they must not.

Preloaded by a server, all of it is made once, before the fork of the workers.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import util

context = multiprocessing.get_context("fork")
manager = context.Manager()
counter = manager.dict()
lock = manager.Lock()
tokens = manager.list()
with lock:  # the first use of a proxy connects it: that connection is what plain forks share
    counter["served"] = len(tokens)
executor = ThreadPoolExecutor(2)
executor.submit(os.getpid).result()
loop = asyncio.new_event_loop()
loop.run_until_complete(loop.run_in_executor(None, os.getpid))
resets: list[int] = []


def _beat() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while os.getppid() == preloader:
        time.sleep(0.05)


class Watched:
    """An object with a callback that counts the resets of its process."""


watched = Watched()
util.register_after_fork(watched, lambda _: resets.append(os.getpid()))

preloader = os.getpid()
daemon = context.Process(target=_beat, daemon=True, name="preloaded daemon")
daemon.start()


def count() -> object:
    """Add one to the counter that all workers share."""
    with lock:
        counter["served"] += 1
    return counter["served"]


def token(value: str) -> object:
    """Store one token; the manager does it in one step."""
    tokens.append(value)
    return value


def run_executor() -> object:
    """Use the executor that was made, and used, before the fork."""
    return executor.submit(os.getpid).result(timeout=5)


def run_loop() -> object:
    """Use the event loop that was made, and used, before the fork: 50 wakeups from threads."""

    async def rounds() -> int:
        for _ in range(50):
            await asyncio.wait_for(loop.run_in_executor(None, os.getpid), 5)
        return os.getpid()

    return loop.run_until_complete(rounds())


PAGES = {
    "/count": count,
    "/total": lambda: counter["served"],
    "/tokens": lambda: " ".join(sorted(tokens)),
    "/executor": run_executor,
    "/loop": run_loop,
    "/pid": os.getpid,
    "/daemon": lambda: daemon.pid,
    "/resets": lambda: len([pid for pid in resets if pid == os.getpid()]),
    "/references": lambda: manager._number_of_objects(),
    "/plain": lambda: "ok",
}


def app(environ: dict[str, str], start_response: object) -> list[bytes]:
    """Answer with what the page returns."""
    path = environ["PATH_INFO"]
    if path.startswith("/token/"):
        body = token(path.split("/", 2)[2])
    else:
        body = PAGES[path]()
    start_response("200 OK", [("Content-Type", "text/plain")])  # type: ignore[operator]
    return [str(body).encode()]


application = app
