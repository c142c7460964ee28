"""Worker classes for ``rq worker -w``: importing this module imports the jobs, before any fork."""

from __future__ import annotations

from multiprocessing import util

import rq_jobs  # noqa: F401 - for the server to find
from rq import Worker


class Preloading(Worker):
    """RQ's own, whose module has imported the jobs."""


class EndsWell(Worker):
    """Ends its children as multiprocessing does, before RQ does so by os._exit()."""

    def perform_job(self, *args: object, **kwargs: object) -> bool:
        """Perform a job, in the child forked for it."""
        try:
            return super().perform_job(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            util._exit_function()  # type: ignore[attr-defined]
