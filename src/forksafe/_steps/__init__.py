"""The steps, and the one place that states their order.

Notes are taken in this order before the fork, `Step.late` ones last; the resets run in this order:

1. What the later steps, or the callbacks, could otherwise trip over: streams, imports, locks.
2. Who this process is: its parent, its name, its children and servers, what it does when it ends.
3. Which things of the parent's it must not delete, wait for, write to or wake.
4. The after-fork registry last: its callbacks find a whole process.
"""

from __future__ import annotations

from .._fork_event import Step
from ._connections import ConnectionsStep
from ._executors import PoolsStep, ProcessExecutorsStep
from ._executors._thread_executors import ThreadExecutorsStep
from ._exit_handlers import ExitHandlersStep
from ._locks import ConditionsStep, ImportsStep, LocksStep
from ._loops import EventLoopsStep, WakeupFdStep
from ._mp import RegistryStep, _processes
from ._streams import LogHandlersStep, StreamsStep
from ._temp_dirs import TempDirsStep
from ._watchdog import WatchdogStep

STEPS: tuple[Step, ...] = (
    StreamsStep(),
    ImportsStep(),
    LocksStep(),
    ConditionsStep(),
    _processes.TrackerStep(),
    _processes.ChildrenStep(),
    _processes.IdentityStep(),
    _processes.ScratchDirStep(),
    _processes.ForkServerStep(),
    ExitHandlersStep(),
    TempDirsStep(),
    WatchdogStep(),
    LogHandlersStep(),
    WakeupFdStep(),
    ConnectionsStep(),  # before the event loops, which watch descriptors
    EventLoopsStep(),  # before the pools, whose failed futures wake a loop up
    PoolsStep(),
    ProcessExecutorsStep(),
    ThreadExecutorsStep(),
    RegistryStep(),
)
