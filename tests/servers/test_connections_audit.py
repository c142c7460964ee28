"""The audit, client by client: what `drop_connections` handles is fixed where it is in effect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from databases import Servers
from serving import Site
from test_connections_programs import NEW_CONNECTION, NO_CONNECTION

KINDS = ("socket", "connection-pool", "database", "thread")
# They register what a child must do themselves.
REGISTERED = ("Kombu",)
POOLS = {
    **dict.fromkeys(("SQLAlchemy", "SQLAlchemy2", "SQLAlchemyAsync"), "SQLAlchemy"),
    **dict.fromkeys(("PsycopgPool", "PsycopgAsyncPool", "DjangoPool"), "psycopg_pool"),
    **dict.fromkeys(("RedisBlocking", "RedisPubSub", "RedisSingle"), "redis-py"),
}


def audits(servers: Servers, client: str) -> list[list[dict[str, Any]]]:
    """Return what the audit says of a connected client, without and with `drop_connections`."""
    site = Site()
    try:
        server = site.start(
            "PYTHON", "connections_audit.py", CLIENT=client, **servers.environment(client)
        )
        assert server.wait() == 0, server.log
        (line,) = (line for line in server.log.splitlines() if line.startswith("[["))
        told: list[list[dict[str, Any]]] = json.loads(line)
        return [[h for h in hazards if h["kind"] in KINDS] for hazards in told]
    finally:
        site.close()


def severities(hazards: list[dict[str, Any]]) -> set[str]:
    return {hazard["severity"] for hazard in hazards}


@pytest.mark.parametrize(
    "client", sorted({*NEW_CONNECTION, *NO_CONNECTION} - {"Redis", *REGISTERED})
)
def test_what_is_dropped_is_fixed(servers: Servers, client: str) -> None:
    """Something needs action without, and nothing with; a pool tells its connections by itself."""
    without, with_ = audits(servers, client)
    assert "action" in severities(without), without
    assert severities(with_) <= {"fixed", "advice"}, with_
    fixed = [h for h in with_ if h["severity"] == "fixed"]
    assert any("drop_connections" in hazard["remedy"] for hazard in fixed)
    if client in POOLS:
        (pool,) = (h for h in without if h["kind"] == "connection-pool")
        assert pool["library"] == POOLS[client]
        told = [h for h in without if h["kind"] == "socket" and h["severity"] == "action"]
        assert told == []


def test_idle_connections_of_redis(servers: Servers) -> None:
    """Their pool drops them in any case, so that nothing is to be done."""
    for hazards in audits(servers, "Redis"):
        assert "action" not in severities(hazards), hazards


@pytest.mark.parametrize("client", REGISTERED)
def test_those_who_register_by_themselves(servers: Servers, client: str) -> None:
    """Their callback answers for it."""
    without, _ = audits(servers, client)
    assert "action" not in severities(without), without
    assert any("your callback of register_after_fork()" in h["remedy"] for h in without)
