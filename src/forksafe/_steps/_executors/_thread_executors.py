"""Row 11: an inherited ``ThreadPoolExecutor`` works in the child, with threads of its own.

In the child it is again as before its first ``submit()``; and shut down where it was shut down.
Work that was queued or running is the parent's: its future raises ``BrokenThreadPool``. We do not
cancel it, as asyncio would take that for a cancellation of its own. This thread's work goes on.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from _thread import get_ident

from ..._fork_event import KEPT, NOTHING, ForkEvent, Step, expect, mend_each
from ..._fork_event._threads import Stacks, interest
from ..._fork_event._typing import Any, Iterable
from . import fail

_MODULE = "concurrent.futures.thread"
_SUBMIT = f"{_MODULE}:ThreadPoolExecutor.submit"
_RUN = f"{_MODULE}:_WorkItem.run"
_WORKER = f"{_MODULE}:_worker"
interest(_SUBMIT, _RUN)
interest(_WORKER, variables=("work_queue", "work_item"), sleeps=("work_queue", "get"))
# Since 3.13 the threads that wait for a queue are in a list that the child starts anew.
_QUEUES_STAY = sys.version_info >= (3, 13)
_STATE = {"_threads", "_work_queue", "_shutdown", "_idle_semaphore", "_shutdown_lock"}


class ThreadExecutor:
    """An executor's queue of work, with the threads that work for it."""

    def __init__(self, executor: Any, queue: Any) -> None:
        self.executor = executor  # None where the program has let go of it, and work is left
        self.queue = queue
        self.threads: list[Any] = []
        self.own: Any = None  # this thread, where it is one of them


class ThreadExecutorsStep(Step):
    name = "thread pools"
    modules = (_MODULE,)
    looks = (":beside_threads", f"{_MODULE}:_threads_queues.data")
    late = True

    def note(self, fork: ForkEvent) -> Any:
        # Here, even if one is of an unknown kind: since 3.14 CPython's hook forgets the threads.
        found, lost = _find(fork)
        stacks: Any = fork.stacks
        # If not, a thread may hold its locks; this very thread, too, if a signal handler forks.
        idle = stacks.asleep and not lost and _SUBMIT not in {*stacks.own, *stacks.others}
        idle &= not any(map(oddity, found))
        return (found, lost, idle, _queues()) if found else NOTHING

    def reset(self, fork: ForkEvent, note: Any) -> bool:
        found, lost, idle, queues = note or (*_find(fork), False, _queues())
        if not found:
            return False
        # Else the exit would join these threads, in one of them even. Since 3.14 CPython does this.
        KEPT.append((found, queues.data))
        queues.data = {}
        try:
            mend_each(lambda one: _start_afresh(one, idle, lost), found)
        finally:
            if lost:
                message = (
                    f"this work was given to a thread of process {os.getppid()}, and process "
                    f"{os.getpid()}, forked from it, has no such thread: submit it again here"
                )
                fail(_work(lost), sys.modules[_MODULE].BrokenThreadPool, message)
        return True


def _find(fork: ForkEvent) -> tuple[list[ThreadExecutor], list[Any]]:
    """Return the executors that have threads, and their work, queued or running."""
    others = {} if fork.stacks is None else fork.stacks.others
    # Another thread may be inside an executor's first submit().
    starting = [ThreadExecutor(one, one._work_queue) for (one,) in others.get(_SUBMIT, ())]
    found = {id(one.queue): one for one in (*starting, *live_thread_executors())}
    busy = [one.queue for one in found.values() if not one.queue.empty()]
    queued = [item for queue in busy for item in _queued(queue)]
    running = [] if fork.stacks is None else _running(fork.stacks, found)
    return list(found.values()), _work([*queued, *running]) if queued or running else []


def _work(items: list[Any]) -> list[Any]:
    return [item for item in items if type(item) is sys.modules[_MODULE]._WorkItem]


def _queues() -> Any:
    queues = getattr(sys.modules.get(_MODULE), "_threads_queues", None)
    expect(hasattr(queues, "data"), f"{_MODULE}._threads_queues is no mapping with weak keys")
    return queues


def live_thread_executors() -> list[ThreadExecutor]:
    """Return the executors that have threads in this process. Reads only."""
    module = sys.modules.get(_MODULE)
    if module is None:
        return []
    found: dict[int, ThreadExecutor] = {}
    me = get_ident()
    for reference, queue in list(_queues().data.items()):
        thread = reference()
        if thread is None:
            continue
        one = found.get(id(queue))
        if one is None:
            executor = (getattr(thread, "_args", None) or [lambda: None])[0]()
            known = isinstance(executor, module.ThreadPoolExecutor)
            one = found[id(queue)] = ThreadExecutor(executor if known else None, queue)
        one.threads.append(thread)
        if thread._ident == me:
            one.own = thread
    return list(found.values())


def _running(stacks: Stacks, found: dict[int, ThreadExecutor]) -> list[Any]:
    """Return, among other things, the work that other threads had taken.

    Since 3.13 work can be nowhere: the queue hands it to a thread that waits, in C, before that
    thread runs (so in 60 of 300 children on a busy machine). More threads wait then than count as
    idle. At the next look the thread has run; or else the work is among the younger objects.
    """
    workers = stacks.others.get(_WORKER, ())
    items = [item for *_, item in (*stacks.others.get(_RUN, ()), *workers) if item is not None]
    waiting = [id(queue) for queue, item in workers if item is None]
    for key, one in found.items():
        idle = getattr(getattr(one.executor, "_idle_semaphore", None), "_value", None)
        if _QUEUES_STAY and idle is not None and waiting.count(key) > idle:
            stacks.places = None
            own = [id(item) for (item,) in stacks.own.get(_RUN, ())]
            young = gc.get_objects(generation=0) + gc.get_objects(generation=1)
            return items + [item for item in young if id(item) not in own]
    return items


def _queued(queue: Any) -> Iterable[Any]:
    """Return, among other things, the work in a queue; the queue stays as it is."""
    if hasattr(queue, "_queue"):  # queue._PySimpleQueue, PyPy's
        return queue._queue  # type: ignore[no-any-return] # a deque
    # Up to 3.12 it refers to a list of the items, since then to the items.
    things = gc.get_referents(queue)
    return [item for thing in things for item in (thing if type(thing) is list else (thing,))]


def oddity(one: ThreadExecutor) -> str:
    """Tell what is unknown of an executor; nothing where it is as ever."""
    kind = type(one.queue).__name__  # the first from C, the second on PyPy
    if kind not in ("SimpleQueue", "_PySimpleQueue"):
        return f"an executor's queue is a {kind}"
    if one.executor is None:
        return ""
    state = vars(one.executor)
    known = state.keys() >= _STATE and state["_work_queue"] is one.queue
    known = known and hasattr(state["_idle_semaphore"], "_value")
    return "" if known else "ThreadPoolExecutor with other attributes, or another queue"


def _start_afresh(one: ThreadExecutor, idle: bool, lost: list[Any]) -> None:
    """Put an executor in the state before its first thread; add its queued work to what is lost."""
    if not idle:
        expect(not (odd := oddity(one)), odd)
        lost += _queued(one.queue)
    state = {} if one.executor is None else vars(one.executor)
    KEPT.append(state.get("_threads") if idle else dict(state))
    if one.own is not None:  # the thread goes on, and knows this queue
        state["_threads"] = {one.own}
        one.queue.__init__()  # PyPy's queue is in Python: its old lock may be held for ever
        while not one.queue.empty():
            one.queue.get_nowait()
        if state.get("_shutdown", True):
            one.queue.put(None)  # so that the thread still ends
    else:
        state["_threads"] = set()
        if not (idle and _QUEUES_STAY):
            state["_work_queue"] = type(one.queue)()
    if not idle:
        state.update(_idle_semaphore=threading.Semaphore(0), _shutdown_lock=threading.Lock())
    elif one.executor is not None:
        state["_idle_semaphore"]._value = 0
