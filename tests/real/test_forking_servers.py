"""The standard library's forking servers, whose handlers share the parent's dict and lock."""

from __future__ import annotations

import pytest
from launch import OURS, run

CLIENTS = "6"
REQUESTS = "8"


@pytest.mark.parametrize("way", OURS)
@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_every_request_is_answered_and_counted_once(kind: str, way: str) -> None:
    """Under several clients at once; in each child and in the parent the count is right."""
    outcome = run(way, "forking_servers.py", kind, CLIENTS, REQUESTS, "30")
    assert outcome.healthy, outcome


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_fails_without_forksafe(kind: str) -> None:
    """The handlers read one another's replies from the manager."""
    outcome = run("plain", "forking_servers.py", kind, CLIENTS, REQUESTS, "3", timeout=12)
    assert not outcome.healthy
    assert "clients failed" in outcome.output, outcome
