"""uWSGI, which forks in C: one import makes its workers, mules and spoolers whole."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from harness import python
from serving import (
    SRC,
    Load,
    Server,
    Site,
    alive,
    failures,
    free_port,
    get,
    need,
    process,
    too_late,
    wait_until,
)
from witness import MIXED_REPLIES

need("pyuwsgi", "pyuwsgi")

WORKERS = 3
REFERENCES = str(3 * (2 + WORKERS))  # three proxies in the master, its daemon and each worker
LINE = ("--import", "forksafe.uwsgi")
THREADS = pytest.mark.parametrize(
    "threads", [(), ("--enable-threads",)], ids=["no threads", "threads"]
)


def serve(site: Site, *options: str, app: str = "wsgi_app", **env: str) -> tuple[Server, int]:
    """Start uWSGI with an application of this directory, and wait until all workers are up."""
    port = free_port()
    server = site.start(
        "pyuwsgi",
        *("--http-socket", f"127.0.0.1:{port}", "--master", "-p", str(WORKERS), "--need-app"),
        *("--disable-logging", "--module", app, *options),
        *("--hook-accepting", "print:worker accepts"),
        **env,
    )
    server.wait_log("\nworker accepts", WORKERS)
    return server, port


def workers(server: Server) -> list[int]:
    """Return the pids of the workers, as uWSGI's log has them."""
    spawned = [
        int(line.partition("(pid: ")[2].partition(",")[0].rstrip(")"))
        for line in server.log.splitlines()
        if "uWSGI worker" in line and "(pid: " in line
    ]
    return [pid for pid in spawned if alive(pid)]


def ended_well(server: Server, site: Site) -> None:
    """Stop the server, and assert that no process is left.

    The manager's directory is: uWSGI's master runs no exit handlers.
    """
    assert server.stop(signal.SIGINT, timeout=10) == 0, server.log
    site.expect_ended()


@THREADS
def test_without_forksafe_workers_hang(site: Site, threads: tuple[str, ...]) -> None:
    """One connection of a proxy in three processes: replies mix, and everybody waits."""
    server, port = serve(site, *threads)
    answers = Load(port, "/count", each=500, timeout=3, give_up=True).finish()
    assert too_late(answers) or any(fault in server.log for fault in MIXED_REPLIES), server.log


@THREADS
def test_counter_is_exact(site: Site, threads: tuple[str, ...]) -> None:
    """With the one option 200 of 200 requests are served, and each is counted once."""
    server, port = serve(site, *LINE, *threads)
    answers = Load(port, "/count").finish()
    assert (len(answers), failures(answers)) == (200, [])
    assert get(port, "/total").body == "200"
    assert {answer.body for answer in Load(port, "/resets").finish()} == {"1"}
    wait_until(lambda: get(port, "/references").body == REFERENCES, "all references")
    ended_well(server, site)


def test_without_forksafe_workers_do_not_end(site: Site) -> None:
    """A worker joins threads that only the master has, until uWSGI kills it after a minute."""
    server, port = serve(site)
    assert get(port, "/plain").status == 200
    pids = workers(server)
    server.send(signal.SIGINT)
    server.wait_log("SIGINT/SIGTERM received")
    with pytest.raises(AssertionError, match="still runs"):
        server.wait(3)
    assert any(map(alive, pids))


@pytest.mark.parametrize("page", ["/executor", "/loop"])
def test_inherited_threads(site: Site, page: str) -> None:
    """A ThreadPoolExecutor and an event loop made, and used, at import work in each worker."""
    server, port = serve(site, *LINE, "--enable-threads")
    answers = Load(port, page, each=10).finish()
    assert (len(answers), failures(answers)) == (80, [])
    served = {int(answer.body) for answer in answers}
    assert served <= set(workers(server)) and len(served) > 1
    ended_well(server, site)


@pytest.mark.parametrize("page", ["/executor", "/loop"])
def test_without_forksafe_threads_are_gone(site: Site, page: str) -> None:
    """What is submitted in a worker waits for threads that only the master has."""
    _server, port = serve(site, "--enable-threads")
    answers = Load(port, page, clients=3, each=1, timeout=4).finish()
    assert len(too_late(answers)) == 3, answers


@pytest.mark.parametrize("line", [(), LINE], ids=["without", "with"])
def test_daemon_outlives_a_worker(site: Site, line: tuple[str, ...]) -> None:
    """A worker that ends sends SIGTERM to the daemon processes of the preloaded application.

    Only where the application has no threads: with them plain workers do not get so far.
    """
    recycle = ("--max-requests", "3", "--min-worker-lifetime", "0")
    server, port = serve(site, *line, *recycle, WITHOUT_THREADS="1")
    daemon = int(get(port, "/daemon").body)
    first = workers(server)
    assert alive(daemon)
    load = Load(port, "/plain", each=400)
    wait_until(lambda: not any(process(pid) for pid in first), "new workers")
    assert failures(load.stop()) == []
    assert alive(daemon) == bool(line)


@pytest.mark.parametrize("option", ["--py-call-uwsgi-fork-hooks"])
@THREADS
def test_reset_once_where_python_s_hooks_run(
    site: Site, option: str, threads: tuple[str, ...]
) -> None:
    """With this option uWSGI runs the at-fork hooks as well: the reset is done by the first."""
    server, port = serve(site, *LINE, option, *threads)
    answers = Load(port, "/count").finish()
    assert (len(answers), failures(answers)) == (200, [])
    assert {answer.body for answer in Load(port, "/resets").finish()} == {"1"}
    wait_until(lambda: get(port, "/references").body == REFERENCES, "all references")
    ended_well(server, site)


def test_lazy_apps(site: Site) -> None:
    """Each worker makes all of it for itself, after the fork: nothing is reset, nothing breaks."""
    server, port = serve(site, *LINE, "--lazy-apps")
    answers = Load(port, "/count").finish()
    assert (len(answers), failures(answers)) == (200, [])
    assert {answer.body for answer in Load(port, "/resets").finish()} == {"0"}
    ended_well(server, site)


@pytest.mark.parametrize("order", ["before", "after", "--import"])
@pytest.mark.parametrize("hook", ["assigned", "decorated", "chained"])
def test_the_application_s_hooks_run(site: Site, hook: str, order: str) -> None:
    """Hooks of the application run once in each worker, and find it whole, whoever came first."""
    line = LINE if order == "--import" else ()
    server, port = serve(site, *line, app="uwsgi_hooks_app", HOOK=hook, ORDER=order)
    expected = {"chained": "by hand:1:0 chained:1:0"}.get(hook, "by hand:1:0")
    assert {answer.body for answer in Load(port, "/seen", each=5).finish()} == {expected}
    assert {answer.body for answer in Load(port, "/resets", each=5).finish()} == {"1"}
    ended_well(server, site)


def test_mule(site: Site) -> None:
    """A mule is a child like a worker."""
    server, _port = serve(site, *LINE, "--enable-threads", "--mule=uwsgi_mule.py")
    result = Path(site.path, "mule")
    wait_until(result.exists, "the mule's result")
    assert result.read_text() == "1 True 1"
    ended_well(server, site)


def test_spooler(site: Site) -> None:
    """A spooler is a child like a worker."""
    jobs = site.path / "jobs"
    jobs.mkdir()
    server, port = serve(site, *LINE, "--spooler", str(jobs), app="uwsgi_spooler_app")
    assert get(port, "/spool").status == 200
    result = Path(site.path, "spooler")
    wait_until(result.exists, "the spooler's result")
    assert result.read_text() == "1 1"
    ended_well(server, site)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="works up to Python 3.12")
def test_osafterfork_option_aborts(site: Site) -> None:
    """--py-call-osafterfork kills each worker on Python 3.13 and later, without forksafe too."""
    port = free_port()
    server = site.start(
        "pyuwsgi",
        *("--http-socket", f"127.0.0.1:{port}", "--master", "-p", "1", "--module", "wsgi_app"),
        "--py-call-osafterfork",
    )
    server.wait_log("Fatal Python error")


def test_import_elsewhere() -> None:
    """Outside of uWSGI the import fails, with what to do instead."""
    result = python("-c", "import forksafe.uwsgi", env={"PYTHONPATH": str(SRC)})
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: forksafe.uwsgi is for uWSGI's own processes")
    assert "forksafe.install()" in last
