"""tornado.process.fork_processes(): an application made before it works in each child."""

from __future__ import annotations

import os
import signal

import pytest
from serving import (
    Load,
    Server,
    Site,
    alive,
    failures,
    free_port,
    get,
    need,
    process,
    too_late,
    wait_until,
)
from witness import MIXED_REPLIES

need("tornado", "tornado")

CHILDREN = 3


def serve(site: Site, *, forksafe: bool, **env: str) -> tuple[Server, int]:
    """Start the server, and wait until all children are up."""
    port = free_port()
    server = site.start("PYTHON", "tornado_app.py", str(port), forksafe=forksafe, **env)
    server.wait_log("worker", CHILDREN)
    return server, port


def test_without_forksafe_children_hang(site: Site) -> None:
    """One connection of a proxy in three processes: replies mix, and everybody waits."""
    server, port = serve(site, forksafe=False)
    answers = Load(port, "/count", each=500, timeout=3, give_up=True).finish()
    assert too_late(answers) or any(fault in server.log for fault in MIXED_REPLIES), server.log


def test_counter_is_exact(site: Site) -> None:
    """200 of 200 requests are served, and each is counted once."""
    _server, port = serve(site, forksafe=True)
    answers = Load(port, "/count").finish()
    assert (len(answers), failures(answers)) == (200, [])
    assert sorted(int(answer.body) for answer in answers) == list(range(1, 201))
    assert {answer.body for answer in Load(port, "/resets").finish()} == {"1"}


def test_executor(site: Site) -> None:
    """A ThreadPoolExecutor made, and used, at import works in each child."""
    _server, port = serve(site, forksafe=True)
    answers = Load(port, "/executor", each=10).finish()
    assert (len(answers), failures(answers)) == (80, [])


@pytest.mark.parametrize("forksafe", [False, True], ids=["without", "with"])
def test_daemon_outlives_a_child(site: Site, forksafe: bool) -> None:
    """A child that ends, here by Ctrl-C, sends SIGTERM to the application's daemon processes."""
    server, port = serve(site, forksafe=forksafe, WITHOUT_THREADS="1")
    daemon = int(get(port, "/daemon").body)
    child = int(server.log.split()[1])
    os.kill(child, signal.SIGINT)
    wait_until(lambda: process(child) is None, "the child's end")
    assert alive(daemon) == forksafe
