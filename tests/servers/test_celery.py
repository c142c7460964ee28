"""Celery's prefork pool: what its children inherit from the worker's parent.

billiard, which forks them, runs the after-fork registry of the standard library itself, so proxies
are whole there and must not be reset a second time. Its children keep multiprocessing's list of
the parent's children, though, and so does every process that a task starts with ``billiard``: the
first of them to end as processes do takes the parent's daemon processes with it.

The pool's children end by ``os._exit()``, and so keep the references that their proxies took at a
manager: one for each proxy and child, also without forksafe. ``END_WELL`` in the application shows
what gives them back.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Redis, Server, Site, alive, wait_until

celery = pytest.importorskip("celery", reason="needs Celery: pip install celery[redis]")
pytest.importorskip("redis", reason="needs redis: pip install celery[redis]")

CHILDREN = 3
PROXIES = 3
# In the worker's parent, in its daemon process, and in each child of the pool.
REFERENCES = PROXIES * (2 + CHILDREN)
BOTH = pytest.mark.parametrize("forksafe", [False, True], ids=["without", "with"])


class Client:
    """Sends tasks, by name alone, and waits for their results."""

    def __init__(self, url: str) -> None:
        self.app = celery.Celery(broker=url, backend=url)

    def send(self, task: str, times: int) -> list[Any]:
        return [self.app.send_task(task) for _ in range(times)]

    def run(self, task: str, times: int = 1, timeout: float = 30.0) -> list[Any]:
        return [result.get(timeout=timeout) for result in self.send(task, times)]


@pytest.fixture
def client(site: Site, redis: Redis) -> Iterator[Client]:
    client = Client(redis.url)
    yield client
    client.app.close()


def work(site: Site, redis: Redis, *options: str, forksafe: bool, **env: str) -> Server:
    """Start a Celery worker, and wait until it is ready."""
    server = site.start(
        *("celery", "-A", "celery_app", "worker", "-c", str(CHILDREN), "-l", "INFO"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", *options),
        forksafe=forksafe,
        BROKER=redis.url,
        **env,
    )
    server.wait_log(" ready.")
    return server


def ended_well(server: Server, site: Site, redis: Redis) -> None:
    """Stop the worker, and assert that it takes everything with it."""
    assert server.stop() == 0, server.log
    redis.server.stop()
    site.expect_clean()


@BOTH
def test_proxies(site: Site, redis: Redis, client: Client, forksafe: bool) -> None:
    """Reset exactly once, with the hook and without; every task is counted, in new children too."""
    server = work(site, redis, "--max-tasks-per-child", "20", forksafe=forksafe)
    assert sorted(client.run("count", 60)) == list(range(1, 61))
    assert set(client.run("resets", 12)) == {1}
    ended_well(server, site, redis)


@BOTH
def test_daemon_outlives_a_process_of_a_task(
    site: Site, redis: Redis, client: Client, forksafe: bool
) -> None:
    """The end of a process that a task started sends SIGTERM to daemons of the worker's parent."""
    server = work(site, redis, forksafe=forksafe)
    daemon = client.run("daemon")[0]
    assert alive(daemon)
    codes = client.run("child", 6)
    assert alive(daemon) == forksafe
    if forksafe:
        assert codes == [0] * 6
        ended_well(server, site, redis)


@BOTH
def test_daemon_outlives_children_that_end_well(
    site: Site, redis: Redis, client: Client, forksafe: bool
) -> None:
    """Nor can children of the pool end as processes do without it."""
    options = ("--max-tasks-per-child", "2")
    server = work(site, redis, *options, forksafe=forksafe, END_WELL="1")
    daemon = client.run("daemon")[0]
    assert len(set(client.run("pid", 12))) >= 6
    assert alive(daemon) == forksafe
    if forksafe:
        ended_well(server, site, redis)


def test_references_are_steady(site: Site, redis: Redis, client: Client) -> None:
    """Hundreds of tasks, in children of forty tasks each, leave no reference at the manager."""
    options = ("--max-tasks-per-child", "40")
    server = work(site, redis, *options, forksafe=True, END_WELL="1")
    wait_until(lambda: client.run("references") == [REFERENCES], "all children up")
    assert sorted(client.run("count", 400, timeout=60)) == list(range(1, 401))
    assert len(set(client.run("pid", 20))) <= CHILDREN
    wait_until(lambda: client.run("references") == [REFERENCES], "as many as there were")
    ended_well(server, site, redis)


@BOTH
def test_references_of_children_that_do_not(
    site: Site, redis: Redis, client: Client, forksafe: bool
) -> None:
    """Each child of the pool that ends by itself leaves one reference for each proxy behind."""
    server = work(site, redis, "--max-tasks-per-child", "2", forksafe=forksafe)
    ended = len(set(client.run("pid", 12)))
    assert ended >= 6
    wait_until(
        lambda: client.run("references")[0] >= REFERENCES + PROXIES * (ended - CHILDREN),
        "more references",
    )
    ended_well(server, site, redis)


def test_inherited_threads(site: Site, redis: Redis, client: Client) -> None:
    """A ThreadPoolExecutor and an event loop made, and used, at import work in each child."""
    server = work(site, redis, "--max-tasks-per-child", "10", forksafe=True)
    assert len(set(client.run("executor", 30))) >= CHILDREN
    assert len(set(client.run("loop", 30))) >= CHILDREN
    ended_well(server, site, redis)


def test_without_forksafe_threads_are_gone(site: Site, redis: Redis, client: Client) -> None:
    """What is submitted in a child waits for threads that only the worker's parent has."""
    work(site, redis, forksafe=False)
    for result in client.send("executor", 1) + client.send("loop", 1):
        with pytest.raises(TimeoutError):
            result.get(timeout=30)


def test_detached(site: Site, redis: Redis, client: Client) -> None:
    """A detached worker execs itself anew, away from its terminal, and is as whole."""
    pidfile = site.path / "pid"
    server = site.start(
        *("celery", "-A", "celery_app", "worker", "-c", str(CHILDREN), "--detach"),
        *(f"--pidfile={pidfile}", f"--logfile={site.path}/detached.log"),
        forksafe=True,
        BROKER=redis.url,
    )
    assert server.wait() == 0, server.log
    daemon = client.run("daemon")[0]
    assert sorted(client.run("count", 60)) == list(range(1, 61))
    assert client.run("child", 3) == [0] * 3
    assert alive(daemon)
    os.kill(int(pidfile.read_text()), signal.SIGTERM)
    wait_until(lambda: not pidfile.exists(), "the end of the worker")
    redis.server.stop()
    # Not clean: the process that was detached from ended by os._exit(), its manager's files stay.
    site.expect_ended()
