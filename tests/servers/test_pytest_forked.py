"""pytest-forked: what a test module makes at import works in the children that its tests run in."""

from __future__ import annotations

import pytest
from serving import APPS, Site, need

need("pytest_forked", "pytest-forked")


@pytest.mark.parametrize("forksafe", [False, True], ids=["without", "with"])
def test_forked_suite(site: Site, forksafe: bool) -> None:
    """A queue that was used before the fork: without forksafe what a child puts is lost."""
    suite = site.path / "suite"
    suite.mkdir()
    (suite / "test_suite.py").write_text((APPS / "forked_suite.py").read_text())
    if forksafe:
        (suite / "conftest.py").write_text("import forksafe\n\nforksafe.install()\n")
    server = site.start(
        *("PYTHON", "-m", "pytest", "--forked", "-p", "no:cacheprovider", "-c", "/dev/null"),
        *("--rootdir", str(suite), str(suite)),
    )
    assert server.wait() == (0 if forksafe else 1), server.log
    assert ("1 passed" if forksafe else "1 failed") in server.log
