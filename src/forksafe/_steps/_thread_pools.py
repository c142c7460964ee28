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

Executors are found through the threads that work for them, which ``concurrent.futures.thread``
keeps in ``_threads_queues``; one that has none yet, through a thread that is in its first
``submit()``, and holds its lock. Running work is found on the stacks of its threads. Since 3.13
work can be nowhere: the queue hands it to a thread that waits, in C, before that thread runs. It
shows by more threads that wait than count as idle; the work itself is then on the heap. So is what
was given away between this look and the fork: there it is among the youngest objects.
"""

from __future__ import annotations

import gc
import os
import sys

from .. import _futures, _stacks
from .._step import NOTHING, Idle, Step, UnknownLayout, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, ModuleType
    from typing import Any

    from .._audit._heap import Heap
    from .._forking import Forking
    from .._hazard import Hazard

__all__ = ["LivePool", "ThreadPoolsStep", "live_thread_pools"]

_ATTRIBUTES = ("_threads", "_work_queue", "_idle_semaphore", "_shutdown_lock", "_shutdown")


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


class ThreadPoolsStep(Step):
    name = "thread pools"
    modules = ("concurrent.futures.thread",)

    def __init__(self) -> None:
        # Kept: the work's arguments are the program's objects, with finalizers.
        self._parents: list[object] = []

    def note(self, fork: Forking) -> Idle | list[LivePool]:
        threads = _queues().data
        if not threads and fork.alone:
            return Idle(threads)
        return _look() or NOTHING

    def reset(self, fork: Forking, note: list[LivePool] | None) -> bool:
        module = sys.modules["concurrent.futures.thread"]
        pools = list(note or ())
        if note is None or not fork.alone:  # other threads went on since
            known = {id(pool.queue): pool for pool in pools}
            for pool in (*live_thread_pools(), *_first_submits(module)):
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
            _fail(_on_the_heap(module, 0), module.BrokenThreadPool, parent)
        # Since 3.14 CPython does: at exit these threads would be joined, by one of them even.
        module._threads_queues.clear()
        if unknown is not None:
            raise unknown
        return True

    def describe(self, heap: Heap) -> Iterator[Hazard]:
        from .._hazard import FIXED, Hazard

        module = sys.modules["concurrent.futures.thread"]
        other = sys.modules.get("concurrent.futures.interpreter")
        interpreters = getattr(other, "InterpreterPoolExecutor", ())
        for pool in live_thread_pools():
            _check(pool, module)
            if not any(thread.is_alive() for thread in pool.threads):
                continue  # it was shut down
            if isinstance(pool.executor, interpreters):
                continue  # no child of theirs comes to its reset: the audit tells that
            name = str(getattr(pool.executor, "_thread_name_prefix", "(dropped)"))
            kind = "ThreadPoolExecutor"
            yield Hazard(
                "executor",
                FIXED,
                f"the {kind} {name!r} would run nothing in the child",
                subject=name if name.startswith(kind) else f"{kind} {name}",
                detail=(
                    f"{len(pool.running) + pool.queue.qsize()} pieces of work are running or "
                    "queued; they are the parent's, and their futures raise BrokenThreadPool in "
                    "the child."
                ),
                remedy="nothing under forksafe: it works in the child, with threads of its own",
                where=f"concurrent.futures.thread:{kind}",
            )


def _look() -> list[LivePool]:
    """Return the executors that a fork must reset, in the parent, with all work that is due."""
    module = sys.modules["concurrent.futures.thread"]
    pools = live_thread_pools()
    frames = sys._current_frames()
    known = {id(pool.queue) for pool in pools}
    for executor in _stacks.within(module.ThreadPoolExecutor.submit, frames.values()):
        queue = getattr(executor, "_work_queue", None)
        if queue is not None and id(queue) not in known:
            known.add(id(queue))
            pools.append(LivePool(executor, queue))
    handed = 0
    for pool in pools:
        pool.due += [item.future for item in _waiting(pool.queue) if hasattr(item, "future")]
        handed += _handed_over(pool, frames, module)
    if handed > 0:
        known = {id(future) for pool in pools for future in (*pool.running, *pool.due)}
        for generation in range(3):
            found = [f for f in _on_the_heap(module, generation) if id(f) not in known]
            pools[0].due += found  # whose they are does not matter: all of them fail
            handed -= len(found)
            if handed <= 0:
                break
    return pools


def _waiting(queue: Any) -> list[Any]:
    """Return what is in an executor's queue, and leave it there."""
    if _is_python_queue(queue):
        return list(queue._queue)
    things = gc.get_referents(queue)  # a list of the items up to 3.12, the items since
    return [item for thing in things for item in (thing if type(thing) is list else (thing,))]


def _handed_over(pool: LivePool, frames: dict[int, FrameType], module: ModuleType) -> int:
    """Return how many of a pool's threads seem to wait, and have work already."""
    semaphore = getattr(pool.executor, "_idle_semaphore", None)
    if sys.version_info < (3, 13) or semaphore is None:
        return 0
    code = getattr(module._worker, "__code__", None)
    innermost = [frames.get(thread.ident) for thread in pool.threads]
    waiting = sum(frame is not None and frame.f_code is code for frame in innermost)
    return max(0, waiting - int(getattr(semaphore, "_value", waiting)))


def _generation(number: int) -> list[Any]:
    if sys.implementation.name == "pypy":  # which has none to look at
        return []
    return gc.get_objects(generation=number)


def _first_submits(module: ModuleType) -> list[LivePool]:
    """Return the executors, of those just made, whose lock a first submit() has left locked."""
    return [
        LivePool(thing, thing._work_queue)
        for thing in _generation(0)
        if issubclass(type(thing), module.ThreadPoolExecutor)
        and getattr(getattr(thing, "_shutdown_lock", None), "locked", bool)()
    ]


def _on_the_heap(module: ModuleType, generation: int) -> list[Any]:
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


def _fail(futures: list[Any], broken: type[Exception], parent: int) -> None:
    for future in map(_futures.check, futures):
        _futures.fail(future, lambda: broken(_message(parent)))


def live_thread_pools() -> list[LivePool]:
    """Return the executors that have threads in this process. Reads only."""
    module = sys.modules.get("concurrent.futures.thread")
    if module is None:
        return []
    queues = _queues()
    found: dict[int, LivePool] = {}
    current = sys.modules["threading"].current_thread() if queues else None
    for thread, queue in list(queues.items()):
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


def _queues() -> Any:
    queues: Any = getattr(sys.modules["concurrent.futures.thread"], "_threads_queues", None)
    expect(
        isinstance(getattr(queues, "data", None), dict),
        "concurrent.futures.thread._threads_queues is no mapping with weak keys",
    )
    return queues


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


def _check(pool: LivePool, module: ModuleType) -> None:
    for future in pool.running:
        _futures.check(future)
    expect(
        hasattr(pool.queue, "get_nowait") and hasattr(pool.queue, "qsize"),
        "an executor's queue without get_nowait()",
    )
    if _is_python_queue(pool.queue):
        expect(hasattr(pool.queue, "_count"), "queue.SimpleQueue without _count")
    else:
        c_queue = getattr(sys.modules.get("_queue"), "SimpleQueue", ())
        expect(isinstance(pool.queue, c_queue), f"an executor's queue is {type(pool.queue)!r}")
    if pool.executor is not None:
        state = vars(pool.executor)
        for attribute in _ATTRIBUTES:
            expect(attribute in state, f"ThreadPoolExecutor without {attribute}")
        expect(state["_work_queue"] is pool.queue, "an executor with two queues")


def _is_python_queue(queue: Any) -> bool:
    return hasattr(queue, "_queue")  # queue._PySimpleQueue, PyPy's


def _drain(pool: LivePool) -> list[Any]:
    """Empty the queue of an executor, without waiting for anything; return the futures."""
    queue = pool.queue
    items = []
    if _is_python_queue(queue):
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
