"""Gunicorn with a preloaded application that has connected at import, and eight clients at once.

The workers share its connections: answers go to the wrong request, TLS breaks, everybody waits.
With ``install(drop_connections=True)`` in the configuration, and nothing else, each has its own.
"""

from __future__ import annotations

import re

import pytest
from databases import Servers
from serving import Answer, Load, Server, Site, failures, free_port, need

need("gunicorn", "gunicorn")

WORKERS = 3
REST = (
    *("SQLAlchemy2", "SQLAlchemyAsync", "SQLAlchemyAsyncpg", "DjangoPool"),
    *("PsycopgNullPool", "PsycopgAsyncPool", "Psycopg2Pool", "AsyncpgPool"),
    *("Redis", "RedisSingle", "RedisBlocking", "RedisPubSub", "RedisAsync"),
    *("Urllib3", "HttpClient", "Botocore", "Httpx", "HttpxAsync", "Aiohttp"),
)
# What is told to be done: 200 of 200.
FIRST = ("Django", "SQLAlchemy", "Requests", "PsycopgPool")
THREADED = ("Django", "DjangoPool", "SQLAlchemy", "Requests", "PsycopgPool", "Httpx", "Redis")
# Not all, for time. In the others the child shares its parent's connection as well, which
# test_connections_programs.py shows; redis-py's pools look at their pid, and aiohttp asks again.
WITHOUT = (*FIRST, "SQLAlchemyAsyncpg", "DjangoPool", "RedisSingle", "RedisPubSub", "Httpx")
ASYNC_LOOP = ("SQLAlchemyAsync", "SQLAlchemyAsyncpg", "PsycopgAsyncPool", "RedisAsync")
# What the clients make of a conversation that others take part in.
FAULTS = (
    r"got the answer of|bad record mac|connection was closed in the middle|produce records"
    r"|does not return rows|closed the connection unexpectedly|lost synchronization"
    r"|another command is already|no message|Protocol Error|PGRES"
)
GTHREAD = ("-k", "gthread", "--threads", "4")


def serve(
    site: Site,
    servers: Servers,
    client: str,
    *options: str,
    install: str = "drop_connections=True",
    **env: str,
) -> tuple[Server, int]:
    """Start Gunicorn with the application, and wait until all workers are up."""
    port = free_port()
    config = site.path / "gunicorn.conf.py"
    config.write_text(f"import forksafe\nforksafe.install({install})\n")
    server = site.start(
        *("gunicorn", "-c", str(config), "--preload", f"-w{WORKERS}", *options),
        *("--graceful-timeout", "4", "-b", f"127.0.0.1:{port}", "connections_app:app"),
        CLIENT=client,
        **servers.environment(client),
        **env,
    )
    server.wait_log("Booting worker", WORKERS)
    return server, port


def load(port: int) -> list[Answer]:
    return Load(port, "/TOKEN").finish()


def ended_well(server: Server, site: Site) -> None:
    assert server.stop() == 0, server.log
    site.expect_ended()


@pytest.mark.parametrize("client", [*FIRST, *REST])
def test_every_request_is_served(site: Site, servers: Servers, client: str) -> None:
    server, port = serve(site, servers, client)
    answers = load(port)
    assert (len(answers), failures(answers)) == (200, [])
    ended_well(server, site)


@pytest.mark.parametrize("client", THREADED)
def test_in_threads(site: Site, servers: Servers, client: str) -> None:
    server, port = serve(site, servers, client, *GTHREAD)
    answers = load(port)
    assert (len(answers), failures(answers)) == (200, [])
    ended_well(server, site)


@pytest.mark.parametrize("client", ASYNC_LOOP)
def test_in_a_loop_of_the_worker(site: Site, servers: Servers, client: str) -> None:
    server, port = serve(site, servers, client, LOOP="new")
    answers = load(port)
    assert (len(answers), failures(answers)) == (200, [])
    ended_well(server, site)


@pytest.mark.parametrize("client", WITHOUT)
def test_without_it_requests_fail(site: Site, servers: Servers, client: str) -> None:
    """The rest of forksafe does not do it."""
    server, port = serve(site, servers, client, install="")
    answers = Load(port, "/TOKEN", timeout=3, give_up=True).finish()
    failed = failures(answers)
    assert failed
    mixed = [answer for answer in failed if answer.status == 0]  # waits for what another has read
    assert mixed or re.search(FAULTS, server.log), server.log


@pytest.mark.parametrize("client", ["SQLAlchemy", "Requests"])
def test_new_workers_and_old_ones(site: Site, servers: Servers, client: str) -> None:
    """Workers end every few requests, new ones are forked from the arbiter, and nobody notices."""
    server, port = serve(site, servers, client, "--max-requests", "40")
    answers = load(port)
    assert (len(answers), failures(answers)) == (200, [])
    assert server.log.count("Booting worker") > WORKERS
    ended_well(server, site)


@pytest.mark.parametrize("client", ["SQLAlchemy", "Requests"])
def test_frozen_heap(site: Site, servers: Servers, client: str) -> None:
    """What ``gc.freeze()`` has hidden from the collector is found nevertheless."""
    server, port = serve(
        site, servers, client, "--max-requests", "40", install="drop_connections=True, freeze=True"
    )
    answers = load(port)
    assert (len(answers), failures(answers)) == (200, [])
    ended_well(server, site)
