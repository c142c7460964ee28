"""The executors of processes that a process has: for row 10.

The started are found through the threads that ``concurrent.futures.process`` keeps in
``_threads_wakeups``; the others through their call queue, which multiprocessing keeps in its
after-fork registry.
"""

from __future__ import annotations

import sys

from ..._fork_event import _threads as _stacks
from ..._fork_event._step import expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

MODULE = "concurrent.futures.process"


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

    __slots__ = ("executor", "lock", "owner", "pending", "queue", "thread", "wakeup")

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


def find_locks(found: list[LiveExecutor]) -> None:
    """Find the locks that threads in a first submit() hold."""
    # Since 3.14 the call queue does not lead to its executor, nor to the lock; a thread that holds
    # it is in submit(), and does.
    submit = getattr(sys.modules[MODULE].ProcessPoolExecutor, "submit", None)
    for executor in _stacks.within(submit, sys._current_frames().values()):
        for live in found:
            if live.queue is getattr(executor, "_call_queue", None):
                live.lock = getattr(executor, "_shutdown_lock", None)


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
        self._newest = -1
        self._references: list[Any] = []

    def seen(self, registered: dict[Any, Any]) -> bool:
        """Tell whether all entries were looked at, and none of them was a call queue."""
        return not self._references and next(reversed(registered))[0] == self._newest

    def found(self, module: ModuleType) -> list[Any]:
        """Return the queues that are alive."""
        self._look(module)
        # One that came by pickle, in a spawned worker, belongs to no executor there.
        queues = [reference() for reference in self._references]
        return [queue for queue in queues if hasattr(queue, "thread_wakeup")]

    def _look(self, module: ModuleType) -> None:
        registered = registry()
        newest = next(reversed(registered), None)
        if newest is None or newest[0] == self._newest:
            return
        callback = getattr(getattr(module, "_SafeQueue", None), "_after_fork", None)
        expect(callback is not None, f"{MODULE} has no _SafeQueue")
        for key in reversed(list(registered)):
            if key[0] <= self._newest:
                break
            if key[2] is callback:
                reference = registered.get(key)
                if reference is not None:
                    self._references.append(reference)
        self._newest = newest[0]


call_queues = _CallQueues()
