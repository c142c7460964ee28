"""pytest-forked: what a test module makes at import works in the children that its tests run in."""

from __future__ import annotations

import pytest
from serving import APPS, Site, need

need("pytest_forked", "pytest-forked")

# pytest-forked 1.7.5 takes a report's __dict__ apart, where newer pytests keep another node id.
MEND = """
import pytest_forked

plain = pytest_forked.serialize_report


def serialize_report(report):
    parts = plain(report)
    parts.pop("_id", None)
    return {**parts, "nodeid": report.nodeid}


pytest_forked.serialize_report = serialize_report
"""


@pytest.mark.parametrize("forksafe", [False, True], ids=["without", "with"])
def test_forked_suite(site: Site, forksafe: bool) -> None:
    """An executor that was used before the fork: without forksafe it has no threads in a test.

    pytest-forked 1.7 forks by multiprocessing.Process, which mends what multiprocessing makes.
    """
    suite = site.path / "suite"
    suite.mkdir()
    (suite / "test_suite.py").write_text((APPS / "forked_suite.py").read_text())
    lines = "import forksafe\nforksafe.install()\n" if forksafe else ""
    (suite / "conftest.py").write_text(lines + MEND)
    server = site.start(
        *("PYTHON", "-m", "pytest", "--forked", "-p", "no:cacheprovider", "-c", "/dev/null"),
        *("--rootdir", str(suite), str(suite)),
    )
    assert server.wait() == (0 if forksafe else 1), server.log
    assert forksafe or "TimeoutError" in server.log
    assert ("1 passed" if forksafe else "1 failed") in server.log
