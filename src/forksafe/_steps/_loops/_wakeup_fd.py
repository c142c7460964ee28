"""Row 12: a signal that arrives in the child wakes the child, and not the parent's event loop.

``signal.set_wakeup_fd()`` names a socket that the interpreter's own signal handler, in C, writes
each signal's number into. After a fork that socket is one for both processes: the child's SIGTERM
reaches the parent's loop, which takes it for its own. So the child starts without one, whoever set
it: asyncio, trio, tornado, twisted, a program. CPython does the same since 3.12, but only where
asyncio was imported (cpython gh-94454).

What asyncio's own signal handlers come to without it: see `_signal_handlers`.
"""

from __future__ import annotations

import sys

from ..._fork_event import _signals
from ..._fork_event._step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._fork_event import Forking


_LOOPS = "asyncio.unix_events:_UnixSelectorEventLoop"

# As signal has it, before it wraps it in Python.
_set_wakeup_fd: Any = sys.modules["_signal"].set_wakeup_fd


class WakeupFdStep(Step):
    name = "wakeup fd"

    def reset(self, fork: Forking, note: None) -> bool:
        # No way to ask without setting.
        try:
            fd: int = _set_wakeup_fd(-1)
        except ValueError:  # not the main thread, says PyPy
            with _signals.as_main_thread:
                fd = _set_wakeup_fd(-1)
        return fd != -1
