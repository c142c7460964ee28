"""Exactly once, in any chain of ways to fork: found by hypothesis, not thought of by us."""

from __future__ import annotations

import pytest
from harness import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from witness import chain

ways = st.sampled_from(["os.fork", "safe_fork", "forked", "Process"])
switches = st.sampled_from(["install", "uninstall", ""])


@pytest.mark.timeout(400)  # all examples together
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(ways, switches), min_size=1, max_size=5))
def test_every_process_of_a_chain_ran_each_callback_once(links: list[tuple[str, str]]) -> None:
    """A plain os.fork() runs none while the hook is off; everything else runs each once."""
    outcome = run(chain, "", *[f"{way},{switch}" for way, switch in links])
    installed = False
    expected, total = [], 0
    for depth, (way, switch) in enumerate(links, 1):
        installed = {"install": True, "uninstall": False}.get(switch, installed)
        once = int(way != "os.fork" or installed)
        total += once
        expected.append([depth, once, total])
    assert outcome.value == expected
