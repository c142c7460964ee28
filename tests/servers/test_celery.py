"""Celery's prefork pool: what its children inherit from the worker's parent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Redis, Server, Site, alive, need, process, wait_until

need("celery", "celery[redis]")
need("redis", "redis")

from celery import Celery

CHILDREN = 3


class Client:
    """Sends tasks, by name alone, and waits for their results."""

    def __init__(self, url: str) -> None:
        self.app = Celery(broker=url, backend=url)

    def send(self, task: str, times: int) -> list[Any]:
        return [self.app.send_task(task) for _ in range(times)]

    def run(self, task: str, times: int = 1, timeout: float = 30.0) -> list[Any]:
        return [result.get(timeout=timeout) for result in self.send(task, times)]


@pytest.fixture
def client(site: Site, redis: Redis) -> Iterator[Client]:
    client = Client(redis.url)
    yield client
    client.app.close()


def work(site: Site, redis: Redis, *options: str, forksafe: bool) -> Server:
    """Start a Celery worker, and wait until it is ready."""
    server = site.start(
        *("celery", "-A", "celery_app", "worker", "-c", str(CHILDREN), "-l", "INFO"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", *options),
        forksafe=forksafe,
        BROKER=redis.url,
    )
    server.wait_log(" ready.")
    return server
