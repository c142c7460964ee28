from __future__ import annotations

import os

import pytest
from harness import OURS

# Fewer of them, for a run that is about something else: the percentage of lines reached.
STYLES = tuple(filter(None, os.environ.get("FORKSAFE_STYLES", "").split(","))) or OURS


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    """Each of forksafe's ways to fork."""
    return request.param
