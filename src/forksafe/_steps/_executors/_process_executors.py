"""Row 10, second half: an inherited ``ProcessPoolExecutor`` fails at once in the child, or works.

One that was started has a thread, which stays in the parent, and workers that are the parent's.
In the child it is broken, as if its workers had died: ``submit()`` and ``map()`` raise
``BrokenProcessPool`` with the executor's owner and the remedy, and so do the futures that were due.
``with``, ``shutdown()``, ``terminate_workers()`` and the exit of the child signal nobody, wait for
nobody, and write nothing into the pipe that wakes the parent's thread.

One that was never started, the usual thing in a module that a server preloads, has pipes and locks
already. Every child that used it would share them: tasks of one child run in another's workers, and
results go astray. In the child it gets its own when work is first submitted, and works.

The started are found through the threads that ``concurrent.futures.process`` keeps in
``_threads_wakeups``; the others through their call queue, which multiprocessing keeps in its
after-fork registry.
"""

from __future__ import annotations

import os
import sys

from ..._fork_event._step import NOTHING, Step, UnknownLayout, expect
from ..._fork_event._threads import interest
from . import check, fail, free

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, ModuleType
    from typing import Any

    from ..._fork_event import ForkEvent

MODULE = "concurrent.futures.process"
_SUBMIT = f"{MODULE}:ProcessPoolExecutor.submit"
interest(_SUBMIT)

_ATTRIBUTES = (
    "_broken",
    "_shutdown_lock",
    "_executor_manager_thread",
    "_executor_manager_thread_wakeup",
    "_call_queue",
    "_result_queue",
    "_work_ids",
    "_processes",
    "_pending_work_items",
)


class ProcessExecutorsStep(Step):
    name = "process executors"
    modules = (MODULE,)

    def __init__(self) -> None:
        # Kept: threads, queues and workers are objects with finalizers.
        self._parents: list[object] = []

    def note(self, fork: ForkEvent) -> list[LiveExecutor]:
        wakeups: Any = getattr(sys.modules[MODULE], "_threads_wakeups", None)
        registered: Any = getattr(
            sys.modules.get("multiprocessing.util"), "_afterfork_registry", {}
        )
        if not wakeups.data and not call_queues.references:
            newest = next(reversed(registered.data), None)
            if newest is None or newest[0] == call_queues.newest:
                return NOTHING  # type: ignore[no-any-return] # stands for itself
        return live_process_executors() or NOTHING

    def reset(self, fork: ForkEvent, note: list[LiveExecutor] | None) -> bool:
        found = list(note or ())
        if note is None:
            found = live_process_executors()
        if fork.stacks is not None:
            # Since 3.14 the call queue does not lead to its executor, nor to the lock that a thread
            # in its first submit() holds; that thread does.
            for _, executor in fork.stacks.others.get(_SUBMIT, ()):
                for live in found:
                    if live.queue is getattr(executor, "_call_queue", None):
                        live.lock = getattr(executor, "_shutdown_lock", None)
        if not found:
            return False
        module = sys.modules[MODULE]
        parent = fork.parent or os.getppid()
        unknown: UnknownLayout | None = None
        for live in found:
            try:
                _check(live)
            except UnknownLayout as exc:
                unknown = exc  # the others are mended all the same
                continue
            message = _message(live.owner or parent)
            lost = [item.future for item in list(live.pending.values())]
            self._parents.append((live, lost, _silence(live.wakeup)))
            if live.thread is None:
                live.pending.clear()
                _start_later(live, module)
            else:
                # The weak reference dies before the executor, so that its callback never runs.
                live.thread.executor_reference = _nobody
            if live.executor is not None:
                self._parents.append(_break(live.executor, message))
            for future in map(check, lost):
                fail(future, sys.modules["functools"].partial(module.BrokenProcessPool, message))
        # Or the child's exit would write to these threads, and join them.
        module._threads_wakeups.clear()
        if unknown is not None:
            raise unknown
        return True


class LiveExecutor:
    """An executor that may have workers.

    Attributes:
        executor: The executor; None where the program has let go of it and work is left, and
            where it was never started.
        wakeup: Its ``_ThreadWakeup``.
        pending: Its work, by number: what is due from the workers.
        owner: The pid of the process whose children the workers are; 0 before there are any.
        lock: Of one that was never started: the lock that a thread in its first submit() holds.
        thread: Its thread; None where it was never started.
    """

    def __init__(self, executor: Any, wakeup: Any, pending: Any, queue: Any, thread: Any) -> None:
        self.executor = executor
        self.wakeup = wakeup
        self.pending = pending
        self.queue = queue
        self.thread = thread
        self.lock: Any = getattr(queue, "shutdown_lock", None)  # the executor's, up to 3.13
        processes = getattr(executor, "_processes", None)
        first = next(iter(list(processes.values())), None) if processes else None
        self.owner: int = getattr(first, "_parent_pid", 0)


def live_process_executors() -> list[LiveExecutor]:
    """Return the executors of this process that have a thread, or pipes. Reads only."""
    module = sys.modules.get(MODULE)
    if module is None:
        return []
    found = []
    for thread, wakeup in list(map_of_wakeups().items()):
        reference = getattr(thread, "executor_reference", None)
        expect(callable(reference), f"{MODULE}: a thread without executor_reference")
        assert reference is not None
        executor = reference()
        pending = thread.pending_work_items
        if executor is not None and executor._pending_work_items:
            pending = executor._pending_work_items
        found.append(LiveExecutor(executor, wakeup, pending, thread.call_queue, thread))
    started = {id(live.queue) for live in found}
    for queue in call_queues.found(module):
        if id(queue) not in started:
            found.append(
                LiveExecutor(None, queue.thread_wakeup, queue.pending_work_items, queue, None)
            )
    return found


def map_of_wakeups() -> Any:
    """Return the mapping of the executors' threads to what wakes them, whose shape was checked."""
    wakeups: Any = getattr(sys.modules[MODULE], "_threads_wakeups", None)
    expect(
        isinstance(getattr(wakeups, "data", None), dict),
        f"{MODULE}._threads_wakeups is no mapping with weak keys",
    )
    return wakeups


def registry() -> dict[Any, Any]:
    """Return what multiprocessing's after-fork registry holds, whose shape was checked."""
    util = sys.modules.get("multiprocessing.util")
    registered: Any = getattr(getattr(util, "_afterfork_registry", None), "data", None)
    expect(isinstance(registered, dict), "multiprocessing.util._afterfork_registry has no data")
    return registered  # type: ignore[no-any-return] # its shape was checked


class _CallQueues:
    """The call queues in the after-fork registry, which may hold thousands of other things.

    Its entries are numbered as they come, so each is looked at once.
    """

    def __init__(self) -> None:
        self.newest = -1
        self.references: list[Any] = []

    def found(self, module: ModuleType) -> list[Any]:
        """Return the queues that are alive."""
        self._look(module)
        # One that came by pickle, in a spawned worker, belongs to no executor there.
        queues = [reference() for reference in self.references]
        return [queue for queue in queues if hasattr(queue, "thread_wakeup")]

    def _look(self, module: ModuleType) -> None:
        registered = registry()
        newest = next(reversed(registered), None)
        if newest is None or newest[0] == self.newest:
            return
        callback = getattr(getattr(module, "_SafeQueue", None), "_after_fork", None)
        expect(callback is not None, f"{MODULE} has no _SafeQueue")
        for key in reversed(list(registered)):
            if key[0] <= self.newest:
                break
            if key[2] is callback:
                reference = registered.get(key)
                if reference is not None:
                    self.references.append(reference)
        self.newest = newest[0]


call_queues = _CallQueues()


def _message(owner: int) -> str:
    return (
        f"this executor's workers belong to process {owner}, and answer to that process alone: "
        f"create a ProcessPoolExecutor in this child (process {os.getpid()}) instead"
    )


def _check(live: LiveExecutor) -> None:
    expect(isinstance(live.pending, dict), "a ProcessPoolExecutor whose pending work is no dict")
    for attribute in ("_closed", "_reader", "_writer"):
        expect(hasattr(live.wakeup, attribute), f"_ThreadWakeup without {attribute}")
    expect(hasattr(live.wakeup, "wakeup"), "_ThreadWakeup without wakeup()")
    if live.executor is not None:
        for attribute in _ATTRIBUTES:
            expect(hasattr(live.executor, attribute), f"ProcessPoolExecutor without {attribute}")


def _silence(wakeup: Any) -> object:
    """Keep the child from writing into the pipe of the parent's thread; return what it had."""
    had = getattr(wakeup, "_lock", None)
    if had is not None:  # since 3.14
        wakeup._lock = sys.modules["threading"].Lock()
    wakeup._closed = True
    return had


def _nobody() -> None:
    """Stand in for the weak reference to an executor."""


def _break(executor: Any, message: str) -> object:
    """Put the executor in the state of one whose workers have died; return what it had."""
    state = vars(executor)
    had = [state[attribute] for attribute in _ATTRIBUTES]
    state["_broken"] = message
    # A thread that is gone may hold the old one.
    state["_shutdown_lock"] = sys.modules["threading"].Lock()
    state["_executor_manager_thread"] = None
    state["_executor_manager_thread_wakeup"] = None
    state["_call_queue"] = None
    state["_result_queue"] = None
    state["_processes"] = {}  # none to signal, none to wait for
    state["_pending_work_items"] = {}
    return had


# What never started: its first submit() calls wakeup() before it touches a pipe. By then this is
# no at-fork code any more, and the frame of submit() knows the executor, which the queue does not.


def _start_later(live: LiveExecutor, module: ModuleType) -> None:
    if live.lock is not None:
        free(live.lock)
    wakeup = live.wakeup
    # Not a functools.partial: PyPy's has a frame of its own.
    wakeup.wakeup = lambda: _on_wakeup(sys._getframe(1), wakeup, module)


def _on_wakeup(frame: FrameType, wakeup: Any, module: ModuleType) -> None:
    if frame.f_code is not module.ProcessPoolExecutor.submit.__code__:
        return  # shutdown(): there is no thread to wake up
    executor = frame.f_locals.get("self")
    if getattr(executor, "_executor_manager_thread_wakeup", None) is wakeup:
        _give_channels(executor, module)


def _give_channels(executor: Any, module: ModuleType) -> None:
    """Give an executor, inside its first submit() in this process, pipes and locks of its own."""
    fresh = module.ProcessPoolExecutor(1, mp_context=executor._mp_context)
    queue, pending = executor._call_queue, executor._pending_work_items
    # As its __init__() makes it, for the executor's own number of workers.
    arguments = {
        "ctx": executor._mp_context,
        "pending_work_items": pending,
        "thread_wakeup": fresh._executor_manager_thread_wakeup,
    }
    if hasattr(queue, "shutdown_lock"):
        arguments["shutdown_lock"] = executor._shutdown_lock
    size = executor._max_workers + module.EXTRA_QUEUED_CALLS
    executor._call_queue = module._SafeQueue(max_size=size, **arguments)
    executor._call_queue._ignore_epipe = queue._ignore_epipe
    executor._result_queue = fresh._result_queue
    executor._executor_manager_thread_wakeup = fresh._executor_manager_thread_wakeup
    executor._processes = {}
    # A thread that is gone may have been in the middle of the executor's start.
    executor._work_ids = type(executor._work_ids)()
    for number in list(pending):
        executor._work_ids.put(number)
