"""The executors of threads that a process has, and the work that is due in each: for row 11.

Executors are found through the threads that work for them, which ``concurrent.futures.thread``
keeps in ``_threads_queues``; one that has none yet, through a thread that is in its first
``submit()``, and holds its lock. Running work is found on the stacks of its threads. Since 3.13
work can be nowhere: the queue hands it to a thread that waits, in C, before that thread runs. It
shows by more threads that wait than count as idle; the work itself is then on the heap. So is what
was given away between this look and the fork: there it is among the youngest objects.
"""

from __future__ import annotations

import gc
import sys

from ..._fork_event import _threads as _stacks
from ..._fork_event._step import expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, ModuleType
    from typing import Any


class LivePool:
    """An executor's threads, with their queue.

    Attributes:
        executor: The executor; None where the program has let go of it, and work is left.
        queue: Its queue of work.
        threads: The threads that work for it.
        due: The futures of the work that was queued, or handed to a thread; not all of it may
            still be due.
        running: The futures of the work that they are in the middle of, without `own`'s.
        own: This thread, where it is one of them.
    """

    __slots__ = ("due", "executor", "own", "queue", "running", "threads")

    def __init__(self, executor: Any, queue: Any) -> None:
        self.executor = executor
        self.queue = queue
        self.threads: list[Any] = []
        self.due: list[Any] = []
        self.running: list[Any] = []
        self.own: Any = None


def queues() -> Any:
    """Return the mapping of threads to the queues of their executors, whose shape was checked."""
    queues: Any = getattr(sys.modules["concurrent.futures.thread"], "_threads_queues", None)
    expect(
        isinstance(getattr(queues, "data", None), dict),
        "concurrent.futures.thread._threads_queues is no mapping with weak keys",
    )
    return queues


def look() -> list[LivePool]:
    """Return the executors that a fork must reset, in the parent, with all work that is due."""
    module = sys.modules["concurrent.futures.thread"]
    pools = live_thread_executors()
    frames = sys._current_frames()
    known = {id(pool.queue) for pool in pools}
    for executor in _stacks.within(module.ThreadPoolExecutor.submit, frames.values()):
        queue = getattr(executor, "_work_queue", None)
        if queue is not None and id(queue) not in known:
            known.add(id(queue))
            pools.append(LivePool(executor, queue))
    handed = 0
    for pool in pools:
        pool.due += [item.future for item in _waiting(pool.queue) if type(item) is module._WorkItem]
        handed += _handed_over(pool, frames, module)
    if handed > 0:
        known = {id(future) for pool in pools for future in (*pool.running, *pool.due)}
        for generation in range(3):
            found = [f for f in on_the_heap(module, generation) if id(f) not in known]
            pools[0].due += found  # whose they are does not matter: all of them fail
            handed -= len(found)
            if handed <= 0:
                break
    return pools


def live_thread_executors() -> list[LivePool]:
    """Return the executors that have threads in this process. Reads only."""
    module = sys.modules.get("concurrent.futures.thread")
    if module is None:
        return []
    threads = queues()
    found: dict[int, LivePool] = {}
    current = sys.modules["threading"].current_thread() if threads else None
    for thread, queue in list(threads.items()):
        executor = _executor(thread, module)
        pool = found.get(id(queue))
        if pool is None:
            pool = found[id(queue)] = LivePool(executor, queue)
        pool.threads.append(thread)
        if thread is current:
            pool.own = thread
    if found:
        _find_running(found, module)
    return list(found.values())


def _executor(thread: Any, module: ModuleType) -> Any:
    # The first argument of _worker() is a weak reference to the executor, from 3.9 to 3.15. A
    # thread that has ended has no arguments.
    arguments = getattr(thread, "_args", None)
    if not arguments:
        return None
    executor = arguments[0]() if callable(arguments[0]) else None
    return executor if isinstance(executor, module.ThreadPoolExecutor) else None


def _find_running(found: dict[int, LivePool], module: ModuleType) -> None:
    work = getattr(getattr(module, "_WorkItem", None), "run", None)
    code = getattr(work, "__code__", None)
    expect(code is not None, "concurrent.futures.thread has no _WorkItem.run")
    worker = getattr(getattr(module, "_worker", None), "__code__", None)
    frames = sys._current_frames()
    for pool in found.values():
        for thread in pool.threads:
            frame = frames.get(thread.ident)
            item = None
            while frame is not None:
                if frame.f_code is code:
                    # The outermost is the executor's, whatever the work does.
                    item = frame.f_locals.get("self")
                elif frame.f_code is worker and item is None:
                    item = frame.f_locals.get("work_item")  # taken, and not begun
                frame = frame.f_back
            future = getattr(item, "future", None)
            if future is not None and thread is not pool.own:
                pool.running.append(future)


def _waiting(queue: Any) -> list[Any]:
    """Return what is in an executor's queue, and leave it there."""
    if is_python_queue(queue):
        return list(queue._queue)
    things = gc.get_referents(queue)  # a list of the items up to 3.12, the items since
    return [item for thing in things for item in (thing if type(thing) is list else (thing,))]


def is_python_queue(queue: Any) -> bool:
    return hasattr(queue, "_queue")  # queue._PySimpleQueue, PyPy's


def _handed_over(pool: LivePool, frames: dict[int, FrameType], module: ModuleType) -> int:
    """Return how many of a pool's threads seem to wait, and have work already."""
    semaphore = getattr(pool.executor, "_idle_semaphore", None)
    if sys.version_info < (3, 13) or semaphore is None:
        return 0
    code = getattr(module._worker, "__code__", None)
    innermost = [frames.get(thread.ident) for thread in pool.threads]
    waiting = sum(frame is not None and frame.f_code is code for frame in innermost)
    return max(0, waiting - int(getattr(semaphore, "_value", waiting)))


def first_submits(module: ModuleType) -> list[LivePool]:
    """Return the executors, of those just made, whose lock a first submit() has left locked."""
    return [
        LivePool(thing, thing._work_queue)
        for thing in _generation(0)
        if issubclass(type(thing), module.ThreadPoolExecutor)
        and getattr(getattr(thing, "_shutdown_lock", None), "locked", bool)()
    ]


def on_the_heap(module: ModuleType, generation: int) -> list[Any]:
    """Return the futures of the work that is on the heap, but for what this thread is inside of."""
    item_type = getattr(module, "_WorkItem", None)
    code = getattr(getattr(item_type, "run", None), "__code__", None)
    mine = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is code:
            mine.append(frame.f_locals.get("self"))
        frame = frame.f_back
    return [
        thing.future
        for thing in _generation(generation)
        if type(thing) is item_type and not any(thing is item for item in mine)
    ]


def _generation(number: int) -> list[Any]:
    if sys.implementation.name == "pypy":  # which has none to look at
        return []
    return gc.get_objects(generation=number)
