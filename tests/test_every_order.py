"""Fork while idle, make something, fork again: the second child is whole, for every step.

What a step sees at one fork must not decide what it does at the next. Each thing is one that a fork
breaks: the control names what plain ``os.fork()`` shows. Hypothesis then makes several in any
order, with a fork behind each of them.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from harness import OURS, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from things import STEPS_OF_THINGS, THINGS, in_order

from forksafe._steps import STEPS

# By intention these keep what POSIX does with the files that `File` stands for.
KEEP_POSIX = {"safe_fork", "hook"}
NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "LateFamily" and find_spec("multiprocess") is None,
            reason="multiprocess is not installed",
        ),
    )
    for name in THINGS
]


def test_every_step_has_a_thing() -> None:
    """But for the one that nothing is done by unless it is asked for: see tests/servers."""
    assert {step.name for step in STEPS} - {"connections"} == STEPS_OF_THINGS


@pytest.mark.parametrize("name", NAMES)
def test_whole_in_the_second_child(name: str, style: str) -> None:
    """Though there was nothing to do at the fork before."""
    if name == "File" and style in KEEP_POSIX:
        pytest.skip("by contract this style keeps what POSIX does")
    outcome = run(in_order, style, "loaded", name)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("name", NAMES)
def test_breaks_under_os_fork(name: str) -> None:
    """Each is something that a fork breaks."""
    faults = THINGS[name].faults
    if not faults:
        pytest.skip("this Python heals it by itself")
    # asyncio, once it is loaded, lets go of the wakeup descriptor by itself, since 3.12.
    outcome = run(in_order, "raw", "not loaded", name, idle=3.0)  # some have waits of two seconds
    assert outcome.shows(*faults), outcome


@pytest.mark.timeout(400)  # all examples together
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(OURS),
    st.sampled_from(["loaded", "not loaded"]),
    st.lists(st.sampled_from(sorted(THINGS)), min_size=2, max_size=6, unique=True),
)
def test_whole_in_any_order(style: str, loaded: str, names: list[str]) -> None:
    """Each child is whole in all that was made so far."""
    absent = {"LateFamily"} if find_spec("multiprocess") is None else set()
    if style in KEEP_POSIX:
        absent.add("File")
    outcome = run(in_order, style, loaded, *[name for name in names if name not in absent])
    assert outcome.healthy, outcome
