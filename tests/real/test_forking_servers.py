"""The standard library's forking servers, whose handlers share the parent's dict and lock."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import run_file

SERVERS = Path(__file__).with_name("programs") / "forking_servers.py"
CLIENTS = "6"
REQUESTS = "8"


@pytest.mark.parametrize("style", ["hook", "replace"])
@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_every_request_is_answered_and_counted_once(kind: str, style: str) -> None:
    """Under several clients at once; in each child and in the parent the count is right."""
    outcome = run_file(SERVERS, style, kind, CLIENTS, REQUESTS, "30")
    assert outcome.healthy, outcome


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_fails_without_forksafe(kind: str) -> None:
    """The handlers read one another's replies from the manager."""
    outcome = run_file(SERVERS, "raw", kind, CLIENTS, REQUESTS, "2", idle=3.0)
    assert outcome.shows("clients failed"), outcome
