"""gevent and eventlet: the hook under their forks, and Gunicorn's gevent workers.

What they do not do by themselves, also where nothing forks, is multiprocessing's managers and
executors made before the patching: those raise BlockingIOError, or wait for ever.
"""

from __future__ import annotations

import pytest
from serving import Load, Site, alive, failures, free_port, get, need, wait_until

need("gevent", "gevent")

WHOLE = "child resets 1 greenlets ['ran']"
PLAIN = "child resets 0 greenlets ['ran']"


@pytest.mark.parametrize("how", ["gevent.os.fork", "os.fork"])
@pytest.mark.parametrize("order", ["before", "after", "unpatched"])
def test_fork(site: Site, order: str, how: str) -> None:
    """Reset once, whether forksafe came before the patching, after it, or nothing is patched."""
    server = site.start("PYTHON", "green_fork.py", "gevent", order, how, forksafe=True)
    assert server.wait() == 0, server.log
    assert server.log.count(WHOLE) == 3
    assert server.log.count("exit code 0") == 3
    assert "resets in the parent 0" in server.log
    assert "daemon lives True" in server.log
    site.expect_clean()


def test_fork_without(site: Site) -> None:
    """Nothing is reset, and the first child that ends takes the daemon process with it."""
    server = site.start("PYTHON", "green_fork.py", "gevent", "before", "gevent.os.fork")
    server.wait()
    assert server.log.count(PLAIN) == 3
    assert "daemon lives False" in server.log


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("forksafe", [False, True], ids=["without", "with"])
def test_eventlet(site: Site, order: str, forksafe: bool) -> None:
    """The same under eventlet, which has no fork of its own."""
    pytest.importorskip("eventlet", reason="needs eventlet: pip install eventlet")
    server = site.start("PYTHON", "green_fork.py", "eventlet", order, "os.fork", forksafe=forksafe)
    code = server.wait()
    assert server.log.count(WHOLE if forksafe else PLAIN) == 3, server.log
    assert f"daemon lives {forksafe}" in server.log
    if forksafe:
        assert code == 0
        site.expect_clean()


@pytest.mark.parametrize("line", [(), ("-c", "python:forksafe.gunicorn")], ids=["without", "with"])
def test_gunicorn(site: Site, line: tuple[str, ...]) -> None:
    """A preloaded application boots, serves, and recycles its workers, and its daemon lives on."""
    pytest.importorskip("gunicorn", reason="needs Gunicorn: pip install gunicorn")
    port = free_port()
    server = site.start(
        *("gunicorn", *line, "--preload", "-w2", "-k", "gevent", "--max-requests", "20"),
        *("--graceful-timeout", "8"),
        *("-b", f"127.0.0.1:{port}", "wsgi_app:app"),
        WITHOUT_THREADS="1",
    )
    server.wait_log("Booting worker", 2)
    daemon = int(get(port, "/daemon").body)
    answers = Load(port, "/resets").finish()
    assert (len(answers), failures(answers)) == (200, [])
    assert {answer.body for answer in answers} == {"1" if line else "0"}
    server.wait_log("Booting worker", 3)  # a worker may have served them all
    wait_until(lambda: len({get(port, "/pid").body for _ in range(8)}) == 2, "both serve")
    assert alive(daemon) == bool(line)
    if line:
        assert server.stop() == 0
        site.expect_clean()


def test_managers_do_not_work_by_themselves(site: Site) -> None:
    """Without any fork of ours, and without forksafe: documented, and nothing for a reset."""
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "from multiprocessing import get_context\n"
        "with get_context('fork').Manager() as manager:\n"
        "    shared = manager.dict()\n"
        "    shared['key'] = 1\n"
    )
    server = site.start("PYTHON", "-c", program)
    assert server.wait() == 1
    assert "BlockingIOError" in server.log
