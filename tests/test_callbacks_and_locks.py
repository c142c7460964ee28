"""What callbacks may use, though forksafe was imported before it: threads, logging, executors.

At-fork hooks run in the child in the order in which they were registered, so those of modules that
were imported later have not run when the callbacks do.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

import pytest
from harness import Forker, run


class Owner:
    """Something of the program's that has a callback."""

    def __init__(self, callback: Callable[[Any], object]) -> None:
        from multiprocessing.util import register_after_fork

        register_after_fork(self, callback)


def thread(fork: Forker) -> None:
    import threading

    def restart(owner: Any) -> None:
        owner.stop = threading.Event()
        owner.thread = threading.Thread(target=owner.stop.wait)
        owner.thread.start()

    owner: Any = Owner(restart)

    def child() -> None:
        assert owner.thread.is_alive()
        assert owner.thread in threading.enumerate()
        owner.stop.set()
        owner.thread.join()

    fork.run(child)


def log(fork: Forker) -> None:
    import logging
    import threading

    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    handler = logging.getLogger().handlers[0]
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        assert handler.lock is not None
        with handler.lock:
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    owner = Owner(lambda owner: logging.getLogger().info("by the callback"))
    fork.run(lambda: None, end="exit")
    release.set()
    holder.join()
    assert owner is not None


def executor(fork: Forker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)

    def submit(owner: Any) -> None:
        owner.future = pool.submit(abs, -3)

    owner: Any = Owner(submit)

    def child() -> tuple[int, int]:
        return owner.future.result(10), pool.submit(abs, -4).result(10)

    assert fork.run(child) == (3, 4)


def forksafe_first(fork: Forker, name: str) -> None:
    import forksafe

    assert forksafe.last_reset() is None
    assert not {"logging", "concurrent.futures", "multiprocessing"} & set(sys.modules)
    globals()[name](fork)


@pytest.mark.parametrize(
    ("program", "printed"), [(thread, ""), (log, "by the callback\n"), (executor, "")]
)
def test_a_callback_finds_a_whole_process(
    program: Callable[[Forker], None], printed: str, style: str
) -> None:
    """A thread that it starts lives on, a record that it logs is written, its work is done."""
    outcome = run(forksafe_first, style, program.__name__, timeout=20)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, printed, "")
