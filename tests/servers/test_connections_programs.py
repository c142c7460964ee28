"""``drop_connections=True``, library by library: the child connects anew, the parent sees nothing.

Each client is real, and so is its server, which tells the number of the connection that it was
asked on. Without forksafe the child asks on its parent's connection.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from databases import Servers
from serving import Site

# Those that have a pool that looks at its pid: redis-py alone does.
BY_THEMSELVES = ("Redis", "RedisBlocking")
NEW_CONNECTION = (
    *("SQLAlchemy", "SQLAlchemy2", "SQLAlchemyEcho", "SQLAlchemyAsync", "SQLAlchemyAsyncpg"),
    *("Django", "DjangoPool"),
    *("PsycopgPool", "PsycopgNullPool", "PsycopgAsyncPool", "Psycopg2Pool", "AsyncpgPool"),
    *("Redis", "RedisSingle", "RedisBlocking", "RedisPubSub", "RedisAsync", "Kombu"),
    *("Requests", "Urllib3", "HttpClient", "Botocore", "Httpx", "HttpxAsync", "Aiohttp"),
)
NO_CONNECTION = {
    "Psycopg": r"psycopg.OperationalError: .*server closed the connection unexpectedly",
    "PsycopgAsync": r"psycopg.OperationalError: .*server closed the connection unexpectedly",
    "Psycopg2": r"psycopg2.OperationalError: server closed the connection unexpectedly",
}
# Used by several threads while a fourth forks: whatever lock of theirs is held then, it is not
# waited for in the child.
THREADED = (
    *("SQLAlchemy", "Django", "DjangoPool", "PsycopgPool", "PsycopgNullPool", "Psycopg2Pool"),
    *("Redis", "Requests", "Urllib3", "Botocore", "Httpx"),
)
# A loop of the child's own, as a server's worker has it. The others belong to the loop that they
# were made in: asyncpg's pool and aiohttp's session say so themselves.
ANY_LOOP = ("SQLAlchemyAsync", "SQLAlchemyAsyncpg", "PsycopgAsyncPool", "RedisAsync", "HttpxAsync")


def run(servers: Servers, client: str, style: str, mode: str, **env: str) -> dict[str, Any]:
    """Run the program; return what it tells, and what it has written besides."""
    site = Site()
    try:
        server = site.start(
            *("PYTHON", "connections_program.py", style, mode),
            CLIENT=client,
            **servers.environment(client),
            **env,
        )
        assert server.wait() == 0, server.log
        *written, told = server.log.splitlines()
        return {**json.loads(told), "written": "\n".join(written)}
    finally:
        site.close()


def connections(told: list[Any]) -> set[str]:
    """Return the connections that were asked on, where nobody met an error."""
    assert all(isinstance(one, list) for one in told), told
    return {number for one in told for number in one}


def expect_undisturbed(told: dict[str, Any]) -> None:
    """The parent's threads have met no error, and every child has come to a good end."""
    assert told["threads"] == []
    assert set(told["ends"]) == {0}


@pytest.mark.parametrize("style", ["hook", "safe_fork"])
@pytest.mark.parametrize("client", NEW_CONNECTION)
def test_child_connects_anew(servers: Servers, client: str, style: str) -> None:
    told = run(servers, client, style, "at once")
    expect_undisturbed(told)
    if client != "PsycopgNullPool":  # which keeps none; other pools may have opened more
        assert set(told["before"]) <= connections(told["parent"])
    others = set(told["before"]) | connections(told["parent"])
    for number, child in enumerate(told["children"]):
        mine = connections([child])
        assert not mine & others, f"child {number} shares a connection"
        others |= mine


@pytest.mark.parametrize("client", sorted({*NEW_CONNECTION, *NO_CONNECTION} - {"PsycopgNullPool"}))
def test_without_forksafe_it_is_shared(servers: Servers, client: str) -> None:
    """One child, that the parent waits for: so both see one connection, and nothing mixes yet."""
    told = run(servers, client, "plain", "in turn")
    shared = connections(told["children"]) & set(told["before"])
    assert bool(shared) == (client not in BY_THEMSELVES), told


@pytest.mark.parametrize("client", ["Redis", "RedisBlocking", "Kombu"])
def test_those_that_do_it_by_themselves(servers: Servers, client: str) -> None:
    """redis-py's pools look at their pid, kombu's register a callback with the standard library."""
    told = run(servers, client, "no drop", "at once")
    expect_undisturbed(told)
    assert not connections(told["children"]) & (set(told["before"]) | connections(told["parent"]))


@pytest.mark.parametrize("style", ["hook", "safe_fork"])
@pytest.mark.parametrize("client", NO_CONNECTION)
def test_single_connection_is_lost(servers: Servers, client: str, style: str) -> None:
    """A connection cannot connect anew: its use in the child says at once that it is closed."""
    told = run(servers, client, style, "at once")
    expect_undisturbed(told)
    assert connections(told["parent"]) == set(told["before"])
    for child in told["children"]:
        assert isinstance(child, str)
        assert re.search(NO_CONNECTION[client], child)


@pytest.mark.parametrize("client", THREADED)
def test_beside_threads_that_use_it(servers: Servers, client: str) -> None:
    told = run(servers, client, "hook", "threads")
    expect_undisturbed(told)
    mine = connections(told["children"])
    assert not mine & (set(told["before"]) | connections(told["parent"]))


@pytest.mark.parametrize("client", ["SQLAlchemy", "Requests", "RedisPubSub"])
def test_fork_in_c(servers: Servers, client: str) -> None:
    told = run(servers, client, "c", "at once")
    expect_undisturbed(told)
    assert not connections(told["children"]) & set(told["before"])


@pytest.mark.parametrize("loop", ["new", "uvloop"])
@pytest.mark.parametrize("client", ANY_LOOP)
def test_in_a_loop_of_its_own(servers: Servers, client: str, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="needs uvloop: pip install forksafe[servers]")
    told = run(servers, client, "hook", "at once", LOOP=loop)
    expect_undisturbed(told)
    assert not connections(told["children"]) & set(told["before"])


@pytest.mark.parametrize("client", ["SQLAlchemy", "Requests"])
def test_nothing_is_written_or_printed(servers: Servers, client: str) -> None:
    """Not even with warnings on: what is dropped is not collected, in the fork or later."""
    told = run(servers, client, "hook", "at once", PYTHONWARNINGS="error")
    assert told["written"] == ""
    assert len(connections(told["children"])) == len(told["children"])
