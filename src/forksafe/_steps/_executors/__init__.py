"""Row 10: an inherited ``Pool``, ``ThreadPool`` or ``ProcessPoolExecutor`` fails at once.

In the child of a pool's owner, submitting work raises ``ValueError``, as with a closed pool, and so
do results that were due. Letting go of the pool (``with``, ``terminate()``) does nothing: it would
send SIGTERM to the parent's workers. An executor is broken, as if its workers had died.

An executor that was never started, as in a module that a server preloads, has pipes already, and
children that shared them would get each other's results. The first ``submit()`` makes new pipes.
"""

from __future__ import annotations

import os
import sys
import threading

from ..._fork_event import KEPT, NOTHING, ForkEvent, Step, _who, expect, mend_each
from ..._fork_event._typing import Any, Never
from ..._fork_event._with_bodies import free_lock
from .._mp import Registry, registries

_ATTRIBUTES = {"_condition", "_state", "_waiters", "_done_callbacks"}
_ASYNCIO_CALLBACK = "_chain_future.<locals>._call_set_state"
_PRIORITY = 15  # of the finalizer of every Pool, from 3.9 to 3.15, and of multiprocess and billiard
_LETTING_GO = ("close", "terminate", "join", "_terminate")
_MODULE = "concurrent.futures.process"


def fail(items: list[Any], broken: type[Exception], message: str) -> None:
    """Fail the futures of work that nobody does in this process."""
    KEPT.append(items)
    # Each by an exception of its own (cpython gh-101267).
    mend_each(lambda item: _fail_future(item.future, broken(message)), items)


def _fail_future(future: Any, error: Exception) -> None:
    expect(vars(future).keys() >= _ATTRIBUTES, "a future with other attributes")
    free_lock(future._condition._lock)
    for waiter in future._waiters:  # of wait() and as_completed()
        free_lock(waiter.event._cond._lock)
        if hasattr(waiter, "lock"):
            free_lock(waiter.lock)
    if future._state == "CANCELLED":  # wait() counts it only when a worker has given notice
        future.set_running_or_notify_cancel()
    if not future.done():
        callbacks, future._done_callbacks = future._done_callbacks, []
        KEPT.append(callbacks)
        future.set_exception(error)
        # The program's callbacks may take locks of vanished threads; asyncio's schedules a call.
        for callback in callbacks:
            if getattr(callback, "__qualname__", None) == _ASYNCIO_CALLBACK:
                callback(future)


class PoolsStep(Step):
    name = "pools"
    modules = _who.submodules("pool")
    looks = _who.paths("util", "_finalizer_registry")

    def note(self, fork: ForkEvent) -> Any:
        return live_pools() or NOTHING

    def reset(self, fork: ForkEvent, note: list[tuple[Any, int]] | None) -> bool:
        pools = live_pools() if note is None else note
        mend_each(_refuse_work, pools)
        return bool(pools)


def live_pools() -> list[tuple[Any, int]]:
    """Return the pools of this process, each with the pid of the process that owns it.

    Reads only. We find pools by their finalizers; a pool that was terminated has none.
    """
    types = tuple(module.Pool for module in _who.loaded(PoolsStep.modules))
    found = []
    for registry in registries():
        for (priority, _), finalizer in list(registry.finalizers.items()):
            reference = getattr(finalizer, "_weakref", None)
            if priority == _PRIORITY and reference and isinstance(pool := reference(), types):
                found.append((pool, finalizer._pid))
    return found


class _Lost(ValueError):
    """The value of lost work, with the attribute that billiard reads of an ``ExceptionInfo``."""

    exception = property(lambda self: self)


def _check_pool(pool: Any) -> None:
    kind, cache = type(pool).__name__, vars(pool).get("_cache")
    known = all(hasattr(pool, name) for name in ("_state", *_LETTING_GO))
    expect(known and isinstance(cache, dict), f"{kind} with other attributes")
    for result in list(vars(pool)["_cache"].values()):
        where = getattr(result, "_event", result)
        known = hasattr(where, "_items") or hasattr(where, "_flag")
        expect(known and hasattr(where, "_cond"), f"{kind}: results of no kind")


def _refuse_work(found: tuple[Any, int]) -> None:
    pool, owner = found
    _check_pool(pool)
    message = (
        f"this pool belongs to process {owner}, and its workers answer to that process alone: "
        f"create a pool in this child (process {os.getpid()}) instead"
    )
    state = vars(pool)
    KEPT.append((state["_cache"], state.get("_terminate")))
    for result in list(state["_cache"].values()):
        _fail_result(result, _Lost(f"the work of this result is lost: {message}"))

    def refuse(*args: object) -> Never:
        raise ValueError(message)

    state["_cache"] = type("_Refusal", (dict,), {"__setitem__": refuse})()
    state.update(dict.fromkeys(_LETTING_GO, lambda *args, **kwargs: None))
    if hasattr(pool, "_check_running"):  # billiard's has no such method, and goes by its state
        state["_check_running"] = lambda: None  # else `with pool:` would raise
        state["_state"] = "CLOSE"  # else the child's exit would warn of it


def _fail_result(result: Any, value: _Lost) -> None:
    condition = getattr(result, "_event", result)._cond
    free_lock(condition._lock)
    with condition:
        if not hasattr(result, "_event"):
            result._items.append((False, value))
            result._index = result._length = 0  # and then the iteration ends
        elif not result._event._flag:
            result._success, result._value = False, value
            result._event._flag = True
        condition.notify_all()


class ProcessExecutorsStep(Step):
    name = "process executors"
    _newest: object = ()  # last key when no queue was there: to look costs a fork 40 page faults
    modules = (_MODULE,)
    looks = "multiprocessing.util:_afterfork_registry.data", f"{_MODULE}:_threads_wakeups.data"

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
        # Else the child's exit would write to these threads, and join them.
        sys.modules[_MODULE]._threads_wakeups.clear()
        mend_each(_mend, found)
        return bool(found)


class LiveExecutor:
    """A ``ProcessPoolExecutor`` that may have workers, known by its call queue."""

    def __init__(self, queue: Any, thread: Any = None) -> None:
        self.queue, self.thread = queue, thread
        self.wakeup, self.pending = queue.thread_wakeup, queue.pending_work_items
        # None if the program has let go of it, or if it was never started and so has no thread.
        self.executor = None if thread is None else thread.executor_reference()
        workers = list((getattr(self.executor, "_processes", None) or {}).values())
        self.owner: int = workers[0]._parent_pid if workers else 0  # whose children they are


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
    started = {id(live.queue) for live in found}  # the others: by their call queues in the registry
    entries = Registry(sys.modules["multiprocessing.util"]).entries
    callback = queue_type._after_fork
    for reference in [entries.get(key, int) for key in list(entries) if key[2] is callback]:
        queue = reference()
        known = type(queue) is queue_type and id(queue) not in started
        # One that a spawned worker has unpickled belongs to no executor there.
        if known and hasattr(queue, "thread_wakeup"):
            found.append(LiveExecutor(queue))
    return found


def _check_executor(live: LiveExecutor) -> None:
    known = isinstance(live.pending, dict) and hasattr(live.wakeup, "_closed")
    if live.executor is not None:
        known = known and vars(live.executor).keys() >= _broken_state("").keys()
    expect(known, "ProcessPoolExecutor with other attributes")


def _broken_state(message: str) -> dict[str, Any]:
    gone = ("_executor_manager_thread", "_executor_manager_thread_wakeup", "_call_queue",
            "_result_queue")  # fmt: skip
    state: dict[str, Any] = {"_broken": message, "_shutdown_lock": threading.Lock()}
    return {**state, **dict.fromkeys(gone), "_processes": {}, "_pending_work_items": {}}


def _mend(live: LiveExecutor) -> None:
    _check_executor(live)
    owner = live.owner or os.getppid()
    message = (
        f"this executor's workers belong to process {owner}, and answer to that process alone: "
        f"create a ProcessPoolExecutor in this child (process {os.getpid()}) instead"
    )
    lost = list(live.pending.values())
    KEPT.append(live)
    live.wakeup._closed = True  # else the child would write to the parent's thread
    if hasattr(live.wakeup, "_lock"):  # since 3.14
        live.wakeup._lock = threading.Lock()
    if live.thread is None:
        live.pending.clear()
        _start_later(live)
    else:
        # The weak reference dies before the executor, so that its callback never runs.
        KEPT.append(live.thread.executor_reference)
        live.thread.executor_reference = lambda: None
    if live.executor is not None:
        state = vars(live.executor)
        KEPT.append(dict(state))
        state.update(_broken_state(message))
    fail(lost, sys.modules[_MODULE].BrokenProcessPool, message)


def _start_later(live: LiveExecutor) -> None:
    """Have the first ``submit()`` give the executor pipes and locks of its own.

    ``submit()`` calls ``wakeup()`` before it touches a pipe. By then this is no at-fork code any
    more, and the frame of ``submit()`` knows the executor, which the queue does not.
    """
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
    if hasattr(fresh._call_queue, "shutdown_lock"):  # up to 3.13
        fresh._call_queue.shutdown_lock = executor._shutdown_lock
    for name in ("_call_queue", "_result_queue", "_executor_manager_thread_wakeup"):
        setattr(executor, name, getattr(fresh, name))
