"""What an application makes at import: things that processes share, and things that they cannot.

Preloaded by a server, all of it is made, and used, once, before the fork of the workers.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import util
from multiprocessing.managers import SyncManager

context = multiprocessing.get_context("fork")
preloader = os.getpid()


def _end_with_preloader() -> None:
    """Not every server's master runs exit handlers, which would end the manager."""

    def watch() -> None:
        while os.getppid() == preloader:
            time.sleep(0.05)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


manager = SyncManager(ctx=context)
manager.start(_end_with_preloader)
counter = manager.dict()
lock = manager.Lock()
tokens = manager.list()
with lock:  # the first use of a proxy connects it: that connection is what plain forks share
    counter["served"] = len(tokens)
executor = ThreadPoolExecutor(1)  # a second thread would be started in a child without the first
loop = asyncio.new_event_loop()
if "WITHOUT_THREADS" not in os.environ:
    executor.submit(os.getpid).result()
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


def references() -> int:
    """Count the references that all processes together hold at the manager."""
    return sum(map(int, re.findall(r"refcount=(\d+)", manager._debug_info())))
