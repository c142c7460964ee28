"""Row 11: an inherited ``ThreadPoolExecutor`` works in the child, with threads of its own.

In the child it is again as before its first ``submit()``; and shut down where it was shut down.
Work that was queued or running is the parent's, and its future raises ``BrokenThreadPool``: code
that expects a cancellation (asyncio's) would take one for its own. The work of the thread that
forks goes on in the child.
"""

from __future__ import annotations

import gc
import os
import sys
import threading

from ..._fork_event import ForkEvent, Step, expect, mend_each
from ..._fork_event._threads import interest
from ..._fork_event._typing import Any, Iterable
from . import fail

_MODULE = "concurrent.futures.thread"
_SUBMIT = f"{_MODULE}:ThreadPoolExecutor.submit"
_RUN = f"{_MODULE}:_WorkItem.run"
_WORKER = f"{_MODULE}:_worker"
interest(_SUBMIT, _RUN)
interest(_WORKER, variables=("work_queue", "work_item"))


class ThreadExecutor:
    """An executor's queue of work, with the threads that work for it."""

    def __init__(self, executor: Any, queue: Any) -> None:
        self.executor = executor  # None where the program has let go of it, and work is left
        self.queue = queue
        self.threads: list[Any] = []
        self.own: Any = None  # this thread, where it is one of them
        # For the child: made in the parent, where that copies no pages. New locks, not freed ones:
        # this very thread may be inside submit(), under a signal handler, and release its one.
        self.fresh: dict[str, Any] = {
            "_idle_semaphore": threading.Semaphore(0),
            "_shutdown_lock": threading.Lock(),
        }


class ThreadExecutorsStep(Step):
    name = "thread pools"
    modules = (_MODULE,)
    on = ("beside_threads",)
    looks = (f"{_MODULE}:_threads_queues.data",)

    def note(self, fork: ForkEvent) -> Any:
        # Since 3.14 a hook of CPython's forgets the threads in the child, maybe before ours. Queued
        # work is noted as well: a thread may take it before the fork.
        found = live_thread_executors()
        return found, [item for one in found for item in _queued(one.queue)]

    def reset(self, fork: ForkEvent, note: tuple[list[Any], list[Any]] | None) -> bool:
        noted, waiting = note or (live_thread_executors(), [])
        module = sys.modules[_MODULE]
        others = {} if fork.stacks is None else fork.stacks.others
        # Another thread may be in the first submit() of one.
        starting = [ThreadExecutor(one, one._work_queue) for _, one in others.get(_SUBMIT, ())]
        found = {id(one.queue): one for one in (*starting, *noted)}
        if not found:
            return False
        Step.kept.append(found)
        lost = [*waiting, *_running(fork, found)]
        try:
            mend_each(lambda one: _start_afresh(lost, one), found.values())
        finally:
            # Or they would be joined at exit, by one of them even. Since 3.14 CPython does this.
            module._threads_queues.clear()
            lost = [item for item in lost if type(item) is module._WorkItem]
            if lost:
                message = (
                    f"this work was given to a thread of process {os.getppid()}, and process "
                    f"{os.getpid()}, forked from it, has no such thread: submit it again here"
                )
                fail(lost, module.BrokenThreadPool, message)
        return True


def live_thread_executors() -> list[ThreadExecutor]:
    """Return the executors that have threads in this process. Reads only."""
    module = sys.modules.get(_MODULE)
    if module is None:
        return []
    queues: Any = getattr(module, "_threads_queues", None)
    expect(hasattr(queues, "data"), f"{_MODULE}._threads_queues is no mapping with weak keys")
    found: dict[int, ThreadExecutor] = {}
    for thread, queue in list(queues.items()):
        one = found.get(id(queue))
        if one is None:
            # A weak reference is first among its arguments; a thread that has ended has none.
            executor = (getattr(thread, "_args", None) or [lambda: None])[0]()
            known = isinstance(executor, module.ThreadPoolExecutor)
            one = found[id(queue)] = ThreadExecutor(executor if known else None, queue)
        one.threads.append(thread)
        if thread is threading.current_thread():
            one.own = thread
    return list(found.values())


def _running(fork: ForkEvent, found: dict[int, ThreadExecutor]) -> list[Any]:
    """Return, among other things, the work that other threads had taken.

    Since 3.13 work can be nowhere: the queue hands it to a thread that waits, in C, before that
    thread runs (so in half of 60 children under load). That shows by more threads that wait than
    count as idle; the work itself is then among the youngest objects.
    """
    if fork.stacks is None:
        return []
    workers = fork.stacks.others.get(_WORKER, ())
    # A worker has taken its work, and maybe not begun it.
    items = [item for *_, item in (*fork.stacks.others.get(_RUN, ()), *workers)]
    waiting = [id(queue) for _, queue, item in workers if item is None]
    if sys.version_info >= (3, 13):
        for key, one in found.items():
            idle = getattr(getattr(one.executor, "_idle_semaphore", None), "_value", None)
            if idle is not None and waiting.count(key) > idle:
                own = [id(item) for _, item in fork.stacks.own.get(_RUN, ())]
                young = gc.get_objects(generation=0)
                return items + [item for item in young if id(item) not in own]
    return items


def _queued(queue: Any) -> Iterable[Any]:
    """Return, among other things, the work in a queue; the queue stays as it is."""
    if hasattr(queue, "_queue"):  # queue._PySimpleQueue, PyPy's
        return queue._queue  # type: ignore[no-any-return] # a deque
    # It refers to a list of the items up to 3.12, to the items since.
    things = gc.get_referents(queue)
    return [item for thing in things for item in (thing if type(thing) is list else (thing,))]


def _check(one: ThreadExecutor) -> None:
    in_c = getattr(sys.modules.get("_queue"), "SimpleQueue", None)  # not on PyPy
    known = type(one.queue) in (in_c, getattr(sys.modules["queue"], "_PySimpleQueue", None))
    expect(known, f"an executor's queue is {type(one.queue)!r}")
    if one.executor is not None:
        state = vars(one.executor)
        known = state.keys() >= {"_threads", "_work_queue", "_shutdown", *one.fresh}
        expect(known, "ThreadPoolExecutor with other attributes")
        expect(state["_work_queue"] is one.queue, "an executor with two queues")


def _start_afresh(lost: list[Any], one: ThreadExecutor) -> None:
    """Put an executor in the state before its first thread; add its queued work to what is lost."""
    _check(one)
    if not one.queue.empty():
        lost += _queued(one.queue)
    state = {} if one.executor is None else vars(one.executor)
    Step.kept.append(dict(state))
    if one.own is None:
        one.fresh.update(_threads=set(), _work_queue=type(one.queue)())
    else:  # the thread goes on, and knows this queue
        one.fresh["_threads"] = {one.own}
        one.queue.__init__()  # PyPy's is in Python, and its old lock may be held for ever
        while not one.queue.empty():
            one.queue.get_nowait()
        if state.get("_shutdown", True):
            one.queue.put(None)  # so that the thread still ends
    state.update(one.fresh)
