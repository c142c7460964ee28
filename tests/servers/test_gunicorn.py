"""Gunicorn with a preloaded application: what its workers inherit works in each of them.

Without forksafe the workers share the connections of the manager's proxies, so that under a few
clients at once all of them hang; their executors and loops have lost their threads; and the first
worker that ends takes the application's daemon process with it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import pytest
from harness import run
from serving import (
    SRC,
    Answer,
    Load,
    Server,
    Site,
    alive,
    children,
    descriptors,
    failures,
    free_port,
    get,
    need,
    process,
    too_late,
    wait_until,
)
from witness import MIXED_REPLIES

need("gunicorn", "gunicorn")

WORKERS = 3
REFERENCES = str(3 * (2 + WORKERS))  # three proxies in the master, its daemon and each worker
GTHREAD = ("-k", "gthread", "--threads", "4")
LINE = ("-c", "python:forksafe.gunicorn")
CONFIG_FILES = {
    "star": "from forksafe.gunicorn import *\n",
    "two lines": "import forksafe\nforksafe.install()\n",
}


def serve(site: Site, *options: str, preload: bool = True, **env: str) -> tuple[Server, int]:
    """Start Gunicorn with the application of this directory, and wait until all workers are up."""
    port = free_port()
    options = (*options, "--preload") if preload else options
    # Shorter than its 30 s: Gunicorn may lose a SIGTERM that meets a worker as it boots.
    options = (*options, "--graceful-timeout", "8")
    server = site.start(
        "gunicorn", *options, f"-w{WORKERS}", "-b", f"127.0.0.1:{port}", "wsgi_app:app", **env
    )
    server.wait_log("Booting worker", WORKERS)
    return server, port


def workers(server: Server) -> set[int]:
    """Return the pids of the workers, as Gunicorn's log has them."""
    booted = {
        int(line.rpartition(" ")[2])
        for line in server.log.splitlines()
        if "Booting worker with pid" in line
    }
    return {pid for pid in booted if alive(pid)}


def exact(port: int, answers: list[Answer]) -> bool:
    """Tell whether the counter counted each of the answers once."""
    numbers = sorted(int(answer.body) for answer in answers)
    return numbers == list(range(1, int(get(port, "/total").body) + 1))


def ended_well(server: Server, site: Site) -> None:
    """Stop the server, and assert that it takes everything with it."""
    assert server.stop() == 0, server.log
    site.expect_clean()


def test_without_forksafe_workers_hang(site: Site) -> None:
    """One connection of a proxy in three processes: replies mix, and everybody waits.

    Not so in gthread workers: proxies connect once in each thread, and theirs are new ones.
    """
    server, port = serve(site)
    answers = Load(port, "/count", each=500, timeout=3, give_up=True).finish()
    assert too_late(answers) or any(fault in server.log for fault in MIXED_REPLIES), server.log


@pytest.mark.parametrize("worker", [(), GTHREAD], ids=["sync", "gthread"])
def test_counter_is_exact(site: Site, worker: tuple[str, ...]) -> None:
    """With the one option 200 of 200 requests are served, and each is counted once."""
    server, port = serve(site, *LINE, *worker)
    answers = Load(port, "/count").finish()
    assert (len(answers), failures(answers)) == (200, [])
    assert exact(port, answers)
    assert {answer.body for answer in Load(port, "/resets").finish()} == {"1"}
    ended_well(server, site)


@pytest.mark.parametrize("lines", CONFIG_FILES)
def test_configuration_file(site: Site, lines: str) -> None:
    """Those who have a configuration file add a line to it, and keep their own settings."""
    config = site.path / "gunicorn.conf.py"
    config.write_text(CONFIG_FILES[lines] + "proc_name = 'mine'\npreload_app = True\n")
    server, port = serve(site, "-c", str(config), preload=False)
    answers = Load(port, "/count").finish()
    assert (len(answers), failures(answers)) == (200, [])
    assert exact(port, answers)
    ended_well(server, site)


@pytest.mark.parametrize("allow", ["", "allow=['thread:late*']"])
def test_audit_in_the_log(site: Site, allow: str) -> None:
    """One line in the configuration: what is alive when the first worker forks is told, once."""
    (site.path / "threaded.py").write_text(
        "import threading, time\n"
        "from wsgi_app import app\n"
        "late = threading.Thread(target=time.sleep, args=(600,), daemon=True)\n"
        "late.name = 'late-metrics'\n"
        "late.start()\n"
    )
    config = site.path / "gunicorn.conf.py"
    config.write_text(
        f"from forksafe.gunicorn import log_audit; log_audit({allow})\n"
        f"pythonpath = {str(site.path)!r}\n"
    )
    port = free_port()
    server = site.start(
        "gunicorn", "-c", str(config), "--preload", "-w2", "-b", f"127.0.0.1:{port}", "threaded:app"
    )
    server.wait_log("Booting worker", 2)
    assert server.log.count("late-metrics") == (0 if allow else 1), server.log
    assert server.log.count("forksafe: ") >= 1
    answers = Load(port, "/count").finish()
    assert failures(answers) == []
    ended_well(server, site)


def binds_no_setting() -> None:
    import forksafe.gunicorn as module

    assert "gunicorn" not in sys.modules
    star: dict[str, object] = {}
    exec("from forksafe.gunicorn import *", star)
    del star["__builtins__"]
    from gunicorn.config import Config

    assert not star and not set(vars(module)) & set(Config().settings)
    import forksafe

    assert forksafe.installed()


def test_binds_no_setting() -> None:
    """Gunicorn applies every name of a configuration module that a setting has."""
    outcome = run(binds_no_setting, "", env={"PYTHONPATH": str(SRC)})
    assert outcome.healthy, outcome


@pytest.mark.parametrize("page", ["/executor", "/loop"])
@pytest.mark.parametrize(
    "worker", [(), ("-k", "gthread", "--threads", "1")], ids=["sync", "gthread"]
)
def test_inherited_threads(site: Site, worker: tuple[str, ...], page: str) -> None:
    """A ThreadPoolExecutor and an event loop made, and used, at import work in each worker."""
    server, port = serve(site, *LINE, *worker)
    answers = Load(port, page, each=10).finish()
    assert (len(answers), failures(answers)) == (80, [])
    served = {int(answer.body) for answer in answers}
    assert served <= workers(server) and len(served) > 1
    ended_well(server, site)


@pytest.mark.parametrize("page", ["/executor", "/loop"])
@pytest.mark.parametrize("worker", [(), GTHREAD], ids=["sync", "gthread"])
def test_without_forksafe_threads_are_gone(site: Site, worker: tuple[str, ...], page: str) -> None:
    """What is submitted in a worker waits for threads that only the arbiter has."""
    _server, port = serve(site, *worker)
    answers = Load(port, page, clients=3, each=1, timeout=4).finish()
    # A loop that another thread of the same worker waits in says so at once.
    assert len(failures(answers)) == 3 and too_late(answers), answers


@pytest.mark.parametrize("options", [(), LINE], ids=["without", "with"])
@pytest.mark.parametrize("worker", [(), GTHREAD], ids=["sync", "gthread"])
def test_daemon_outlives_a_worker(
    site: Site, worker: tuple[str, ...], options: tuple[str, ...]
) -> None:
    """A worker that ends sends SIGTERM to the daemon processes of the preloaded application."""
    server, port = serve(site, *worker, *options)
    daemon = int(get(port, "/daemon").body)
    assert alive(daemon)

    def ended(pid: int) -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)  # Gunicorn may lose one that meets a worker as it boots
        return process(pid) is None

    for pid in workers(server):
        wait_until(lambda pid=pid: ended(pid), "the end of the worker")  # type: ignore[misc]
    assert alive(daemon) == bool(options)


def test_signals_under_load(site: Site) -> None:
    """More workers, fewer, new ones, a reload: no request fails, and none is counted twice."""
    server, port = serve(site, *LINE)
    Load(port, "/count", each=5).finish()
    before = workers(server)
    load = Load(port, "/count", each=2000)
    for number, count in (("SIGTTIN", 4), ("SIGTTIN", 5), ("SIGTTOU", 4), ("SIGTTOU", WORKERS)):
        os.kill(server.pid, getattr(signal, number))
        # Two of the same number that wait at once are one.
        wait_until(lambda count=count: len(workers(server)) == count, f"{count} workers")
        load.wait_for(40)
    for worker in workers(server):
        with suppress(ProcessLookupError):  # SIGTTOU's may take a while to end
            os.kill(worker, signal.SIGTERM)
        load.wait_for(40)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: not before & workers(server), "the end of the old workers")
    wait_until(lambda: len(workers(server)) == WORKERS, "three workers")
    load.wait_for(40)
    answers = load.stop()
    assert failures(answers) == []
    assert int(get(port, "/total").body) == 40 + len(answers)
    assert not before & workers(server)
    wait_until(lambda: all(child.state != "Z" for child in children(server.pid)), "no zombie")
    wait_until(lambda: get(port, "/references").body == REFERENCES, "all references")
    ended_well(server, site)


def test_recycled_workers(site: Site) -> None:
    """--max-requests ends a worker every few requests, and nobody notices."""
    server, port = serve(site, *LINE, "--max-requests", "10", "--max-requests-jitter", "5")
    first = workers(server)
    daemon = int(get(port, "/daemon").body)
    before = descriptors(server.pid)
    answers = Load(port, "/count", each=50).finish()
    assert (len(answers), failures(answers)) == (400, [])
    assert exact(port, answers)
    assert server.log.count("Booting worker") >= 20 and not first & workers(server)
    # Its control server, which has a handful, starts anew behind every fork.
    wait_until(lambda: descriptors(server.pid) < before + 10, "no descriptor for each worker")
    assert alive(daemon)
    ended_well(server, site)


def test_killed_workers(site: Site) -> None:
    """SIGKILL cuts the request that the worker serves; every other is served, and stored once."""
    server, port = serve(site, *LINE)
    load = Load(port, "/token/TOKEN", each=2000)
    for _ in range(4):
        load.wait_for(40)
        killed = min(workers(server))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda killed=killed: process(killed) is None, "the worker reaped")  # type: ignore[misc]
        wait_until(lambda: len(workers(server)) == WORKERS, "a new worker")
    answers = load.stop()
    assert len(failures(answers)) <= 4, failures(answers)
    stored = get(port, "/tokens").body.split()
    served = [answer.body for answer in answers if answer.status == 200]
    assert len(stored) == len(set(stored))
    assert set(served) <= set(stored)
    assert len(stored) <= len(answers)
    ended_well(server, site)


def test_new_arbiter(site: Site) -> None:
    """SIGUSR2 starts a new arbiter beside the old one, which then ends: no request fails."""
    server, port = serve(site, *LINE, "--pid", str(site.path / "pid"))
    load = Load(port, "/count", each=3000)
    load.wait_for(40)
    os.kill(server.pid, signal.SIGUSR2)
    server.wait_log("Booting worker", 2 * WORKERS)
    load.wait_for(40)
    assert server.stop() == 0
    load.wait_for(40)
    answers = load.stop()
    assert failures(answers) == []
    wait_until((site.path / "pid").exists, "the new arbiter is the one")
    new = int((site.path / "pid").read_text())
    assert new != server.pid
    assert len([pid for pid in workers(server) if process(pid).parent == new]) == WORKERS  # type: ignore[union-attr]
    assert get(port, "/resets").body == "1"
    os.kill(new, signal.SIGTERM)
    site.expect_clean()


def test_without_preload(site: Site) -> None:
    """Each worker makes all of it for itself, after the fork: nothing is reset, nothing breaks."""
    server, port = serve(site, *LINE, preload=False)
    for page in ("/count", "/executor", "/loop"):
        answers = Load(port, page, each=10).finish()
        assert (len(answers), failures(answers)) == (80, [])
    assert {answer.body for answer in Load(port, "/resets").finish()} == {"0"}
    ended_well(server, site)
