"""What the tests of every server share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from databases import postgres, redis_server, servers, web  # noqa: F401 - fixtures, by being here
from serving import Redis, Site


@pytest.fixture
def site() -> Iterator[Site]:
    """A directory for a server; whatever was started in it is gone after the test."""
    site = Site()
    try:
        yield site
    finally:
        site.close()


@pytest.fixture
def redis(site: Site) -> Redis:
    """A Redis server of the test's own."""
    return Redis(site)
