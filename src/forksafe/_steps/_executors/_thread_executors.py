"""Row 11: an inherited ``ThreadPoolExecutor`` works in the child, with threads of its own.

Its threads stay in the parent, but it counts them and starts no others: ``submit()`` queues work
that never runs. In the child it is again as before its first ``submit()``: no threads, an empty
queue, free locks; with its initializer, the prefix of its threads' names and its limit, and shut
down where it was shut down. The loop's default executor, ``asyncio.to_thread()`` and
``run_in_executor()`` follow.

Work that was queued or running at the fork is the parent's, and runs there alone. What waits for it
in the child must not wait for ever: its future raises ``BrokenThreadPool`` (a ``BrokenExecutor``)
there. A cancellation would be the other choice, but nobody cancelled the work, and code that
expects one (asyncio's) would take it for its own. The fork that an executor's thread makes itself,
inside of a piece of work, is the exception: that thread lives on in the child, and so do its work
and its future.

How the work is found: see `forksafe._steps._executors._thread_pool_work`.
"""

from __future__ import annotations

import os
import sys

from ..._fork_event._step import NOTHING, Idle, Step, UnknownLayout, expect
from .. import _executors as _futures
from ._thread_pool_work import (
    first_submits,
    is_python_queue,
    live_thread_executors,
    look,
    on_the_heap,
    queues,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from ..._fork_event import Forking
    from ._thread_pool_work import LivePool

_ATTRIBUTES = ("_threads", "_work_queue", "_idle_semaphore", "_shutdown_lock", "_shutdown")


class ThreadPoolsStep(Step):
    name = "thread pools"
    modules = ("concurrent.futures.thread",)

    def __init__(self) -> None:
        # Kept: the work's arguments are the program's objects, with finalizers.
        self._parents: list[object] = []

    def note(self, fork: Forking) -> Idle | list[LivePool]:
        threads = queues().data
        if not threads and fork.alone:
            return Idle(threads)
        return look() or NOTHING

    def reset(self, fork: Forking, note: list[LivePool] | None) -> bool:
        module = sys.modules["concurrent.futures.thread"]
        pools = list(note or ())
        if note is None or not fork.alone:  # other threads went on since
            known = {id(pool.queue): pool for pool in pools}
            for pool in (*live_thread_executors(), *first_submits(module)):
                if id(pool.queue) in known:
                    known[id(pool.queue)].threads = pool.threads
                else:
                    pools.append(pool)
        if not pools:
            return False
        parent = fork.parent or os.getppid()
        unknown: UnknownLayout | None = None
        for pool in pools:
            try:
                _check(pool, module)
            except UnknownLayout as exc:
                unknown = exc  # the others are mended all the same
                continue
            lost = [*pool.running, *pool.due, *_drain(pool)]
            self._parents.append((pool.queue, lost, pool.threads))
            if pool.executor is not None:
                self._parents.append(_start_afresh(pool))
            _fail(lost, getattr(pool.executor, "BROKEN", module.BrokenThreadPool), parent)
        if not fork.alone:
            _fail(on_the_heap(module, 0), module.BrokenThreadPool, parent)
        # Since 3.14 CPython does: at exit these threads would be joined, by one of them even.
        module._threads_queues.clear()
        if unknown is not None:
            raise unknown
        return True


def _fail(futures: list[Any], broken: type[Exception], parent: int) -> None:
    for future in map(_futures.check, futures):
        _futures.fail(future, lambda: broken(_message(parent)))


def _check(pool: LivePool, module: ModuleType) -> None:
    for future in (*pool.running, *pool.due):
        _futures.check(future)
    expect(
        hasattr(pool.queue, "get_nowait") and hasattr(pool.queue, "qsize"),
        "an executor's queue without get_nowait()",
    )
    if is_python_queue(pool.queue):
        expect(hasattr(pool.queue, "_count"), "queue.SimpleQueue without _count")
    else:
        c_queue = getattr(sys.modules.get("_queue"), "SimpleQueue", ())
        expect(isinstance(pool.queue, c_queue), f"an executor's queue is {type(pool.queue)!r}")
    if pool.executor is not None:
        state = vars(pool.executor)
        for attribute in _ATTRIBUTES:
            expect(attribute in state, f"ThreadPoolExecutor without {attribute}")
        expect(state["_work_queue"] is pool.queue, "an executor with two queues")


def _drain(pool: LivePool) -> list[Any]:
    """Empty the queue of an executor, without waiting for anything; return the futures."""
    queue = pool.queue
    items = []
    if is_python_queue(queue):
        items += queue._queue
        queue._queue.clear()
        # The lock of the old one may be held for ever.
        queue._count = sys.modules["threading"].Semaphore(0)
    else:
        while queue.qsize():
            items.append(queue.get_nowait())  # in C: with an item there, no lock is needed
    # None tells a thread to end, and is no work. This thread, if it is one of them, still has to.
    if pool.own is not None and (pool.executor is None or pool.executor._shutdown):
        queue.put(None)
    return [item.future for item in items if hasattr(item, "future")]


def _start_afresh(pool: LivePool) -> object:
    """Put the executor in the state before its first thread; return what it had."""
    state = vars(pool.executor)
    had = [state[attribute] for attribute in _ATTRIBUTES]
    # New locks rather than freed ones: this very thread may be inside submit(), under a signal
    # handler, and release the one it has.
    state["_shutdown_lock"] = sys.modules["threading"].Lock()
    state["_idle_semaphore"] = sys.modules["threading"].Semaphore(0)
    state["_threads"] = set() if pool.own is None else {pool.own}
    if pool.own is None:
        state["_work_queue"] = type(pool.queue)()
    return had


def _message(parent: int) -> str:
    return (
        f"this work was given to a thread of process {parent}, and process {os.getpid()}, "
        "forked from it, has no such thread: submit it again here"
    )
