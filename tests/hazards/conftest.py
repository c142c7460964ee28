from __future__ import annotations

import pytest
from harness import OURS


@pytest.fixture(params=OURS)
def style(request: pytest.FixtureRequest) -> str:
    """Each of forksafe's ways to fork."""
    return request.param
