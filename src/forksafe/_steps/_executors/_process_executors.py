"""Row 10, second half: an inherited ``ProcessPoolExecutor`` fails at once in the child, or works.

One that was started has a thread and workers that are the parent's. In the child it is broken, as
if its workers had died: ``submit()`` and the futures that were due say so, ``shutdown()`` and the
end of the child signal nobody, wait for nobody and wake nobody. One that was never started, the
usual thing in a module that a server preloads, has pipes already, and children that shared them
would get each other's results. It gets its own when work is first submitted, and works.
"""

from __future__ import annotations

import os
import sys

from ..._fork_event import ForkEvent
from ..._fork_event._step import NOTHING, Step, expect, kept, mend_each
from ..._fork_event._typing import Any
from .._mp import Registry
from . import fail

_MODULE = "concurrent.futures.process"


class ProcessExecutorsStep(Step):
    name = "process executors"
    modules = (_MODULE,)

    # Of the after-fork registry, which may have thousands of entries, when it held no call queue.
    _newest: object = ()

    def note(self, fork: ForkEvent) -> Any:
        util: Any = sys.modules["multiprocessing.util"]
        newest = next(reversed(util._afterfork_registry.data), None)
        if newest == self._newest and not sys.modules[_MODULE]._threads_wakeups.data:
            return NOTHING
        found = live_process_executors()
        self._newest = () if found else newest
        return found or NOTHING

    def reset(self, fork: ForkEvent, note: list[LiveExecutor] | None) -> bool:
        found = live_process_executors() if note is None else note
        # Or the child's exit would write to these threads, and join them.
        sys.modules[_MODULE]._threads_wakeups.clear()
        parent = fork.parent or os.getppid()
        mend_each(lambda one: _mend(parent, one), found)
        return bool(found)


class LiveExecutor:
    """An executor that may have workers, known by its queue of calls."""

    def __init__(self, queue: Any, thread: Any = None) -> None:
        self.queue, self.thread = queue, thread
        self.wakeup, self.pending = queue.thread_wakeup, queue.pending_work_items
        # None where the program has let go of it, or it was never started: then it has no thread.
        self.executor = None if thread is None else thread.executor_reference()
        workers = list((getattr(self.executor, "_processes", None) or {}).values())
        # The process whose children they are; 0 before there are any.
        self.owner: int = workers[0]._parent_pid if workers else 0


def live_process_executors() -> list[LiveExecutor]:
    """Return the executors of this process that have a thread, or pipes. Reads only."""
    module: Any = sys.modules.get(_MODULE)
    if module is None:
        return []
    wakeups: Any = getattr(module, "_threads_wakeups", None)
    queue_type: Any = getattr(module, "_SafeQueue", None)
    expect(hasattr(wakeups, "data") and queue_type, f"{_MODULE} without threads, or queues")
    found = []
    for thread in list(wakeups):
        expect(hasattr(thread, "executor_reference"), f"{_MODULE}: a thread of another kind")
        found.append(LiveExecutor(thread.call_queue, thread))
    started = {id(live.queue) for live in found}
    # What was never started is found by its call queue, which multiprocessing knows.
    entries = Registry(sys.modules["multiprocessing.util"]).entries
    for (_, _, callback), reference in list(entries.items()):
        if callback is queue_type._after_fork:
            queue = reference()
            known = type(queue) is queue_type and id(queue) not in started
            # One that came by pickle, in a spawned worker, belongs to no executor there.
            if known and hasattr(queue, "thread_wakeup"):
                found.append(LiveExecutor(queue))
    return found


def _check(live: LiveExecutor) -> None:
    known = isinstance(live.pending, dict) and hasattr(live.wakeup, "_closed")
    if live.executor is not None:
        known = known and vars(live.executor).keys() >= _broken_state("").keys()
    expect(known, "ProcessPoolExecutor with other attributes")


def _broken_state(message: str) -> dict[str, Any]:
    return {
        "_broken": message,
        "_shutdown_lock": sys.modules["threading"].Lock(),
        "_executor_manager_thread": None,
        "_executor_manager_thread_wakeup": None,
        "_call_queue": None,
        "_result_queue": None,
        "_processes": {},
        "_pending_work_items": {},
    }


def _mend(parent: int, live: LiveExecutor) -> None:
    _check(live)
    module = sys.modules[_MODULE]
    message = (
        f"this executor's workers belong to process {live.owner or parent}, and answer to that "
        f"process alone: create a ProcessPoolExecutor in this child (process {os.getpid()}) instead"
    )
    lost = list(live.pending.values())
    kept.append(live)
    live.wakeup._closed = True  # or the child would write to the parent's thread
    if hasattr(live.wakeup, "_lock"):  # since 3.14
        live.wakeup._lock = sys.modules["threading"].Lock()
    if live.thread is None:
        live.pending.clear()
        _start_later(live)
    else:
        # The weak reference dies before the executor, so that its callback never runs.
        kept.append(live.thread.executor_reference)
        live.thread.executor_reference = lambda: None
    if live.executor is not None:
        state = vars(live.executor)
        kept.append(dict(state))
        state.update(_broken_state(message))
    fail(lost, module.BrokenProcessPool, message)


def _start_later(live: LiveExecutor) -> None:
    """Have the first ``submit()`` give the executor pipes and locks of its own.

    It calls ``wakeup()`` before it touches a pipe. By then this is no at-fork code any more, and
    the frame of ``submit()`` knows the executor, which the queue does not.
    """
    if hasattr(live.queue, "shutdown_lock"):  # up to 3.13
        live.queue.shutdown_lock._at_fork_reinit()
    submit = sys.modules[_MODULE].ProcessPoolExecutor.submit.__code__

    def wakeup() -> None:
        frame = sys._getframe(1)
        executor: Any = frame.f_locals.get("self")
        if frame.f_code is submit and executor._executor_manager_thread_wakeup is live.wakeup:
            _give_channels(executor)  # else shutdown(): there is no thread to wake up

    live.wakeup.wakeup = wakeup


def _give_channels(executor: Any) -> None:
    make = sys.modules[_MODULE].ProcessPoolExecutor
    fresh = make(executor._max_workers, mp_context=executor._mp_context)
    fresh._call_queue.pending_work_items = executor._pending_work_items
    if hasattr(fresh._call_queue, "shutdown_lock"):
        fresh._call_queue.shutdown_lock = executor._shutdown_lock
    for name in ("_call_queue", "_result_queue", "_executor_manager_thread_wakeup"):
        setattr(executor, name, getattr(fresh, name))
