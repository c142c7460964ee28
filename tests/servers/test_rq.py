"""RQ, which forks for each job by ``os.fork()``: what a job inherits from its worker works there.

The child of each job ends by ``os._exit()``. So it keeps the references that its proxies took at a
manager: one for each proxy and job. ``EndsWell`` in apps/rq_workers.py gives them back, with
forksafe only: without it, it would also end the daemon processes of the worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from serving import Redis, Server, Site

rq = pytest.importorskip("rq", reason="needs RQ: pip install rq")
redis_client = pytest.importorskip("redis", reason="needs redis: pip install rq")

PROXIES = 3
REFERENCES = PROXIES * 2  # in the worker and its daemon process
BOTH = pytest.mark.parametrize("forksafe", [False, True], ids=["without", "with"])


class Jobs:
    """A queue, filled before the worker starts, and what became of its jobs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = redis_client.Redis.from_url(url)
        self.queue = rq.Queue(connection=self.connection)
        self._jobs: list[Any] = []

    def put(self, function: str, times: int = 1, timeout: int = 60) -> list[Any]:
        many = [
            rq.Queue.prepare_data(f"rq_jobs.{function}", timeout=timeout, result_ttl=600)
            for _ in range(times)
        ]
        return self.queue.enqueue_many(many)


def results(jobs: list[Any]) -> list[Any]:
    """Return what the jobs returned; None where one failed."""
    for job in jobs:
        job.refresh()
    return [job.return_value() if job.is_finished else None for job in jobs]


@pytest.fixture
def jobs(redis: Redis) -> Iterator[Jobs]:
    jobs = Jobs(redis.url)
    yield jobs
    jobs.connection.close()


def work(site: Site, jobs: Jobs, worker: str = "Preloading", *, forksafe: bool) -> Server:
    """Start a worker that ends when the queue is empty."""
    return site.start(
        *("rq", "worker", "--burst", "--quiet", "-u", jobs.url, "-w", f"rq_workers.{worker}"),
        forksafe=forksafe,
    )


def ended_well(site: Site, redis: Redis) -> None:
    """Assert that the worker has taken everything with it."""
    redis.server.stop()
    site.expect_clean()


def test_without_forksafe_a_job_breaks(site: Site, jobs: Jobs) -> None:
    """Nothing is reset, and what a job submits waits for threads that only the worker has."""
    done = jobs.put("resets", 3)
    executed = jobs.put("run_executor")
    looped = jobs.put("run_loop")
    assert work(site, jobs, forksafe=False).wait(60) == 0
    assert results(done) == [0, 0, 0]
    assert results(executed) == results(looped) == [None]


def test_jobs(site: Site, redis: Redis, jobs: Jobs) -> None:
    """Proxies work in each job, and each is reset once."""
    counted, reset = jobs.put("count", 10), jobs.put("resets", 10)
    server = work(site, jobs, forksafe=True)
    assert server.wait(90) == 0, server.log
    assert sorted(results(counted)) == list(range(1, 11))
    assert results(reset) == [1] * 10
    ended_well(site, redis)


@pytest.mark.parametrize("job", ["run_executor", "run_loop"])
def test_inherited_threads(site: Site, redis: Redis, jobs: Jobs, job: str) -> None:
    """An executor and an event loop that the worker made, and used, work in each job."""
    done = jobs.put(job, 5)
    server = work(site, jobs, forksafe=True)
    assert server.wait(90) == 0, server.log
    assert len({*results(done)} - {None}) == 5
    ended_well(site, redis)


def test_many_jobs(site: Site, redis: Redis, jobs: Jobs) -> None:
    """The worker's descriptors and threads, and the manager's references, stay as they were."""
    before = [jobs.put(name)[0] for name in ("references", "parent", "references", "parent")]
    counted = jobs.put("count", 200)
    after = [jobs.put(name)[0] for name in ("references", "parent")]
    server = work(site, jobs, "EndsWell", forksafe=True)
    assert server.wait(100) == 0, server.log
    assert sorted(results(counted)) == list(range(1, 201))
    first = results(before)
    assert results(after) == first[2:]
    assert first[0] == REFERENCES + PROXIES
    ended_well(site, redis)


@BOTH
def test_references_of_jobs_that_end_by_os_exit(
    site: Site, redis: Redis, jobs: Jobs, forksafe: bool
) -> None:
    """With RQ's own worker and forksafe each job leaves one reference for each proxy."""
    before = jobs.put("references")
    jobs.put("resets", 20)
    after = jobs.put("references")
    server = work(site, jobs, forksafe=forksafe)
    assert server.wait(90) == 0, server.log
    leaked = results(after)[0] - results(before)[0]
    assert leaked == (PROXIES * 21 if forksafe else 0)
    ended_well(site, redis)


@BOTH
def test_daemon_outlives_jobs_that_end_well(site: Site, jobs: Jobs, forksafe: bool) -> None:
    """Without forksafe a child that ends as processes do ends the daemons of the worker too."""
    done = jobs.put("daemon_lives", 6)
    work(site, jobs, "EndsWell", forksafe=forksafe).wait(90)
    first, *_, last = lives = results(done)
    assert (first, last) == (True, forksafe)  # it takes the daemon a moment to end
    assert forksafe is False or all(lives)
