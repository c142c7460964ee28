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

Executors are found through the threads that work for them, and through threads that are inside of
``submit()``; queued work in the queue, and running work on the stacks of the threads. Since 3.13
work can be nowhere: the queue hands it to a thread that waits, in C, before that thread runs (28 to
41 of 60 children under load waited for such work for ever). That shows by more threads that wait
than count as idle; the work itself is then among the youngest objects.
"""

from __future__ import annotations

import gc
import os
import sys

from ..._fork_event._step import NOTHING, Step, UnknownLayout, expect
from ..._fork_event._threads import interest
from . import check, fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType
    from typing import Any

    from ..._fork_event import ForkEvent

_MODULE = "concurrent.futures.thread"
_ATTRIBUTES = ("_threads", "_work_queue", "_idle_semaphore", "_shutdown_lock", "_shutdown")
_SUBMIT = f"{_MODULE}:ThreadPoolExecutor.submit"
_RUN = f"{_MODULE}:_WorkItem.run"
_WORKER = f"{_MODULE}:_worker"
interest(_SUBMIT, _RUN)
interest(_WORKER, variables=("work_queue", "work_item"))


class ThreadExecutor:
    """An executor's threads, with their queue.

    Attributes:
        executor: The executor; None where the program has let go of it, and work is left.
        queue: Its queue of work.
        threads: The threads that work for it.
        own: This thread, where it is one of them.
    """

    def __init__(self, executor: Any, queue: Any) -> None:
        self.executor = executor
        self.queue = queue
        self.threads: list[Any] = []
        self.own: Any = None


class ThreadExecutorsStep(Step):
    name = "thread pools"
    modules = (_MODULE,)

    def __init__(self) -> None:
        # Kept: the work's arguments are the program's objects, with finalizers.
        self._parents: list[object] = []

    def note(self, fork: ForkEvent) -> tuple[list[ThreadExecutor], list[Any]]:
        """Return the executors, and the work that is queued: a thread may take it before the fork.

        Since 3.14 a hook of CPython's forgets the threads in the child, maybe before ours.
        """
        queues: Any = getattr(sys.modules[_MODULE], "_threads_queues", None)
        if fork.alone and not queues.data:
            return NOTHING  # type: ignore[no-any-return] # stands for itself
        waiting: list[Any] = []
        for queue in {id(queue): queue for queue in queues.data.values()}.values():
            if _is_python_queue(queue):
                waiting += queue._queue
            else:  # it refers to a list of the items up to 3.12, to the items since
                for thing in gc.get_referents(queue):
                    waiting += thing if type(thing) is list else (thing,)
        return live_thread_executors(), waiting

    def reset(
        self, fork: ForkEvent, note: tuple[list[ThreadExecutor], list[Any]] | None
    ) -> bool:
        module = sys.modules[_MODULE]
        noted, waiting = note or ((), ())
        found = {id(one.queue): one for one in (*live_thread_executors(), *noted)}
        for one in _in_submit(fork):
            found.setdefault(id(one.queue), one)
        if not found:
            return False
        broken: type[Exception] = module.BrokenThreadPool
        message = _message(fork.parent or os.getppid())
        unknown: UnknownLayout | None = None
        lost = _futures(waiting) + _running(fork, found)
        for one in found.values():
            try:
                _check(one)
            except UnknownLayout as exc:
                unknown = exc  # the others are mended all the same
                continue
            lost += _drain(one)
            had = None if one.executor is None else _start_afresh(one)
            self._parents.append((one, had))
        self._parents.append(lost)
        for future in map(check, lost):
            fail(future, lambda: broken(message))
        # Since 3.14 CPython does: at exit these threads would be joined, by one of them even.
        module._threads_queues.clear()
        if unknown is not None:
            raise unknown
        return True


def live_thread_executors() -> list[ThreadExecutor]:
    """Return the executors that have threads in this process. Reads only."""
    module = sys.modules.get(_MODULE)
    queues: Any = getattr(module, "_threads_queues", None)
    if module is None:
        return []
    expect(
        isinstance(getattr(queues, "data", None), dict),
        f"{_MODULE}._threads_queues is no mapping with weak keys",
    )
    found: dict[int, ThreadExecutor] = {}
    current = sys.modules["threading"].current_thread() if queues else None
    for thread, queue in list(queues.items()):
        one = found.get(id(queue))
        if one is None:
            one = found[id(queue)] = ThreadExecutor(_executor(thread, module), queue)
        one.threads.append(thread)
        if thread is current:
            one.own = thread
    return list(found.values())


def _executor(thread: Any, module: ModuleType) -> Any:
    # The first argument of _worker() is a weak reference to the executor, from 3.9 to 3.15. A
    # thread that has ended has no arguments.
    arguments = getattr(thread, "_args", None)
    if not arguments:
        return None
    executor = arguments[0]() if callable(arguments[0]) else None
    return executor if isinstance(executor, module.ThreadPoolExecutor) else None


def _in_submit(fork: ForkEvent) -> Iterable[ThreadExecutor]:
    """Yield the executors whose ``submit()`` another thread was in: one may be its first."""
    if fork.stacks is not None:
        for _, executor in fork.stacks.others.get(_SUBMIT, ()):
            queue = getattr(executor, "_work_queue", None)
            if queue is not None:
                yield ThreadExecutor(executor, queue)


def _running(fork: ForkEvent, found: dict[int, ThreadExecutor]) -> list[Any]:
    """Return the futures of the work that other threads had taken."""
    if fork.stacks is None:
        return []
    items = [item for _, item in fork.stacks.others.get(_RUN, ())]
    waiting = dict.fromkeys(found, 0)
    for _, queue, item in fork.stacks.others.get(_WORKER, ()):
        if item is not None:
            items.append(item)  # taken, and maybe not begun
        elif id(queue) in waiting:
            waiting[id(queue)] += 1
    if sys.version_info >= (3, 13):
        for key, one in found.items():
            idle = getattr(getattr(one.executor, "_idle_semaphore", None), "_value", None)
            if idle is not None and waiting[key] > idle:
                own = [item for _, item in fork.stacks.own.get(_RUN, ())]
                young = gc.get_objects(generation=0)
                items += [item for item in young if not any(item is one for one in own)]
                break
    return _futures(items)


def _futures(items: Iterable[Any]) -> list[Any]:
    work = getattr(sys.modules[_MODULE], "_WorkItem", None)
    return [item.future for item in items if type(item) is work]


def _is_python_queue(queue: Any) -> bool:
    return hasattr(queue, "_queue")  # queue._PySimpleQueue, PyPy's


def _check(one: ThreadExecutor) -> None:
    expect(
        hasattr(one.queue, "get_nowait") and hasattr(one.queue, "qsize"),
        "an executor's queue without get_nowait()",
    )
    if _is_python_queue(one.queue):
        expect(hasattr(one.queue, "_count"), "queue.SimpleQueue without _count")
    else:
        c_queue = getattr(sys.modules.get("_queue"), "SimpleQueue", ())
        expect(isinstance(one.queue, c_queue), f"an executor's queue is {type(one.queue)!r}")
    if one.executor is not None:
        state = vars(one.executor)
        for attribute in _ATTRIBUTES:
            expect(attribute in state, f"ThreadPoolExecutor without {attribute}")
        expect(state["_work_queue"] is one.queue, "an executor with two queues")


def _drain(one: ThreadExecutor) -> list[Any]:
    """Empty the queue of an executor, without waiting for anything; return the futures."""
    queue = one.queue
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
    if one.own is not None and (one.executor is None or one.executor._shutdown):
        queue.put(None)
    return [item.future for item in items if hasattr(item, "future")]


def _start_afresh(one: ThreadExecutor) -> object:
    """Put the executor in the state before its first thread; return what it had."""
    state = vars(one.executor)
    had = [state[attribute] for attribute in _ATTRIBUTES]
    # New locks rather than freed ones: this very thread may be inside submit(), under a signal
    # handler, and release the one it has.
    state["_shutdown_lock"] = sys.modules["threading"].Lock()
    state["_idle_semaphore"] = sys.modules["threading"].Semaphore(0)
    state["_threads"] = set() if one.own is None else {one.own}
    if one.own is None:
        state["_work_queue"] = type(one.queue)()
    return had


def _message(parent: int) -> str:
    return (
        f"this work was given to a thread of process {parent}, and process {os.getpid()}, "
        "forked from it, has no such thread: submit it again here"
    )
