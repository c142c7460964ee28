"""``forksafe run`` in front of a server's command, whose application has no line of forksafe.

What the same commands do without it is asserted where the server is: the tests "without forksafe"
of ``test_gunicorn.py``, ``test_celery.py`` and ``test_rq.py``.
"""

from __future__ import annotations

import signal
from typing import Any

import pytest
from serving import Load, Redis, Site, alive, failures, free_port, get


def test_gunicorn(site: Site) -> None:
    """``forksafe run gunicorn ...``: 200 of 200 requests, each counted once."""
    need_now("gunicorn", "gunicorn")
    port = free_port()
    server = site.start(
        *("PYTHON", "-m", "forksafe", "run", "gunicorn", "--preload", "-w3"),
        *("-b", f"127.0.0.1:{port}", "wsgi_app:app"),
    )
    server.wait_log("Booting worker", 3)
    answers = Load(port, "/count").finish()
    assert (len(answers), failures(answers)) == (200, [])
    assert get(port, "/total").body == "200"
    assert {answer.body for answer in Load(port, "/resets").finish()} == {"1"}
    assert server.stop() == 0
    site.expect_clean()


def test_celery(site: Site, redis: Redis) -> None:
    """``forksafe run celery -A app worker``: a daemon process outlives a task's process."""
    need_now("celery", "celery[redis]")
    from celery import Celery

    server = site.start(
        *("PYTHON", "-m", "forksafe", "run", "celery", "-A", "celery_app", "worker", "-c", "3"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"),
        BROKER=redis.url,
    )
    server.wait_log(" ready.")
    with Celery(broker=redis.url, backend=redis.url) as client:

        def run(task: str) -> Any:
            return client.send_task(task).get(timeout=30)

        daemon = run("daemon")
        assert run("child") == 0
        assert run("resets") == 1
        assert alive(daemon)
        assert run("executor") > 0
    assert server.stop(signal.SIGTERM) == 0, server.log
    redis.server.stop()
    site.expect_clean()


def test_rq(site: Site, redis: Redis) -> None:
    """``forksafe run rq worker``: each job is reset once."""
    need_now("rq", "rq")
    import rq
    from redis import Redis as Client

    with Client.from_url(redis.url) as connection:
        queue = rq.Queue(connection=connection)
        jobs = [queue.enqueue(f"rq_jobs.{name}") for name in ("resets", "count", "resets")]
        server = site.start(
            *("PYTHON", "-m", "forksafe", "run", "rq", "worker", "--burst", "--quiet"),
            *("-u", redis.url, "-w", "rq_workers.Preloading"),
        )
        assert server.wait() == 0, server.log
        assert [job.return_value(refresh=True) for job in jobs] == [1, 1, 1]
    redis.server.stop()
    site.expect_clean()


def need_now(module: str, requirement: str) -> None:
    """Skip this test unless `module` can be imported."""
    pytest.importorskip(module, reason=f"needs {module}: pip install {requirement}")
