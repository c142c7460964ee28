"""The steps, and the one place that states their order.

The notes are taken in this order before the fork, and the resets run in this order in the child:

1. What the later steps, or the callbacks, could otherwise trip over: streams, imports, the lock of
   the tracker.
2. Who this process is: its parent, its name, its children and servers, what it does when it ends.
3. What of the parent's it must not delete, wait for or wake.
4. The after-fork registry last: its callbacks are the program's code, and find a whole process.
"""

from __future__ import annotations

from ._children import ChildrenStep
from ._event_loops import EventLoopsStep
from ._exit_handlers import ExitHandlersStep
from ._fork_server import ForkServerStep
from ._identity import IdentityStep
from ._imports import ImportsStep
from ._pools import PoolsStep
from ._process_executors import ProcessExecutorsStep
from ._registry import RegistryStep
from ._scratch_dir import ScratchDirStep
from ._std_streams import StdStreamsStep
from ._temp_dirs import TempDirsStep
from ._thread_pools import ThreadPoolsStep
from ._tracker import TrackerStep
from ._wakeup_fd import WakeupFdStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._step import Step

__all__ = ["STEPS"]

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
