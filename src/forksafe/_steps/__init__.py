"""The steps, and the one place that states their order.

The notes are taken in this order before the fork, and the resets run in this order in the child:

1. What the later steps, or the callbacks, could otherwise trip over: streams, imports, the tracker's
   lock.
2. Who this process is: its parent, its name, its children, what it does when it ends.
3. The after-fork registry last: its callbacks are the program's code, and find a whole process.
"""

from __future__ import annotations

from ._children import ChildrenStep
from ._exit_handlers import ExitHandlersStep
from ._identity import IdentityStep
from ._imports import ImportsStep
from ._registry import RegistryStep
from ._std_streams import StdStreamsStep
from ._temp_dirs import TempDirsStep
from ._tracker import TrackerStep

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
    ExitHandlersStep(),
    TempDirsStep(),
    RegistryStep(),
)
