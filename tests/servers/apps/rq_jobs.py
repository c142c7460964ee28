"""Jobs for RQ, and what their module makes at import. The worker imports it before it forks."""

from __future__ import annotations

import os

if "WITH_FORKSAFE" in os.environ:
    import forksafe

    forksafe.install()

import preloaded
from preloaded import count, references, run_executor, run_loop  # noqa: F401 - for the server to find


def resets() -> int:
    """Tell how often this process was reset."""
    return preloaded.resets.count(os.getpid())


def parent() -> tuple[int, int, int]:
    """Tell the worker's pid, and count its file descriptors and threads."""
    pid = os.getppid()
    return pid, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def daemon_lives() -> bool:
    """Tell whether the worker's daemon process lives."""
    with open(f"/proc/{preloaded.daemon.pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] not in "ZX"
