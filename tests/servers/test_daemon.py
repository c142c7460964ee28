"""python-daemon: a manager that was started before the program became a daemon.

``DaemonContext`` closes every file descriptor, the connections of proxies too. A proxy that was
reset opens its own at its next use, so nothing needs to be preserved.
"""

from __future__ import annotations

import pytest
from serving import Site, need, wait_until

need("daemon", "python-daemon")


@pytest.mark.parametrize("forksafe", [False, True], ids=["without", "with"])
def test_manager_started_before(site: Site, forksafe: bool) -> None:
    """The daemon uses it; without forksafe its connection is a descriptor that is closed."""
    result = site.path / "result"
    server = site.start("PYTHON", "daemon_program.py", str(result), forksafe=forksafe)
    assert server.wait() == 0, server.log
    wait_until(result.exists, "the daemon's result")
    told = result.read_text()
    if forksafe:
        assert told == "whole True"
    else:
        assert "Bad file descriptor" in told
