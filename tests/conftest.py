"""What every test shares."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from typing import TypeVar

import pytest
from harness import OURS

# .ci/run sets this where everything that a test may need is installed: a skip there is a hole.
NO_SKIP = bool(os.environ.get("FORKSAFE_NO_SKIP"))

# Fewer of them, for a run that is about something else: the percentage of lines reached.
STYLES = tuple(filter(None, os.environ.get("FORKSAFE_STYLES", "").split(","))) or OURS

# Where the programs of the tests put their temporary files: many are killed, and leave them.
SCRATCH = tempfile.mkdtemp(prefix="forksafe-")
os.environ["TMPDIR"] = SCRATCH

# A shell has its background jobs ignore Ctrl-C, and what they start inherits that. Programs that
# end by it need the usual handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    """Each of forksafe's ways to fork."""
    return str(request.param)


def _no_skip(report: R) -> R:
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{why}\n(FORKSAFE_NO_SKIP is set: nothing may be skipped here)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count the skip of a test as a failure, where nothing may be skipped."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Count the skip of a whole file as a failure, where nothing may be skipped."""
    return _no_skip((yield))


def pytest_unconfigure() -> None:
    """Remove what the programs left."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
