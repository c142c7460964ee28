"""The steps, and the one place that states their order.

The notes are taken in this order before the fork, and the resets run in this order in the child:

1. What the later steps, or the callbacks, could otherwise trip over: streams, imports, the lock of
   the tracker.
2. Who this process is: its parent, its name, its children and servers, what it does when it ends.
3. What of the parent's it must not delete, wait for or wake.
4. The after-fork registry last: its callbacks are the program's code, and find a whole process.
"""

from __future__ import annotations

from ._executors._pools import PoolsStep
from ._executors._process_executors import ProcessExecutorsStep
from ._executors._thread_executors import ThreadPoolsStep
from ._exit_handlers import ExitHandlersStep
from ._imports import ImportsStep
from ._loops import EventLoopsStep
from ._loops._wakeup_fd import WakeupFdStep
from ._mp import RegistryStep
from ._mp._fork_server import ForkServerStep
from ._mp._identity import IdentityStep
from ._mp._process import ChildrenStep
from ._mp._scratch_dir import ScratchDirStep
from ._mp._tracker import TrackerStep
from ._streams import StdStreamsStep
from ._temp_dirs import TempDirsStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._fork_event._step import Step

STEPS: tuple[Step, ...] = (
    StdStreamsStep(),
    ImportsStep(),
    TrackerStep(),
    ChildrenStep(),
    IdentityStep(),
    ScratchDirStep(),
    ForkServerStep(),
    ExitHandlersStep(),
    TempDirsStep(),
    WakeupFdStep(),
    EventLoopsStep(),  # before the pools, whose failed futures wake a loop up
    PoolsStep(),
    ProcessExecutorsStep(),
    ThreadPoolsStep(),
    RegistryStep(),
)
