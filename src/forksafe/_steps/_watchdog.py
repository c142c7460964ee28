"""Row 25: ``faulthandler.dump_traceback_later()`` watches the parent, and does not hang the child.

The watchdog is a thread, in C, for whose end a child waits for ever. So we cancel it before the
fork, and set it again in the parent with the time that is left. Nothing tells whether it is set, so
from the import of forksafe on, until `forksafe.uninstall()`, we wrap the two functions, and note
what they are given. The audit tells of a watchdog that was set before the import.
"""

from __future__ import annotations

import sys
import time

from .._fork_event import ForkEvent, Step
from .._fork_event._typing import Any

_faulthandler: Any = __import__("faulthandler")  # PyPy's has neither of the two functions
_set: Any = getattr(_faulthandler, "dump_traceback_later", None)
_cancel: Any = getattr(_faulthandler, "cancel_dump_traceback_later", None)

_armed: Any = None  # of the watchdog, or None: timeout, other arguments, when it was set


class WatchdogStep(Step):
    name = "watchdog"
    looks = (f"{__name__}:_armed",)

    def note(self, fork: ForkEvent) -> None:
        _cancel()
        fork.undo += (_set_again,)

    def reset(self, fork: ForkEvent, note: None) -> bool:
        global _armed
        was, _armed = _armed, None
        return was is not None

    def leave(self) -> None:
        global _armed
        if getattr(_faulthandler, "dump_traceback_later", None) is dump_traceback_later:
            _faulthandler.dump_traceback_later = _set
            _faulthandler.cancel_dump_traceback_later = _cancel
            _armed = None


def _set_again() -> None:
    timeout, options, begin = _armed
    passed = time.monotonic() - begin
    left = timeout - passed % timeout if options["repeat"] else timeout - passed
    if left > 0:
        _set(left, **options)


def wrap() -> None:
    """Wrap the two functions, to take note of the watchdog from here on. Idempotent."""
    if _set is not None and _faulthandler.dump_traceback_later is _set:
        _faulthandler.dump_traceback_later = dump_traceback_later
        _faulthandler.cancel_dump_traceback_later = cancel_dump_traceback_later


def dump_traceback_later(
    timeout: float, repeat: bool = False, file: Any = None, exit: bool = False, **more: Any
) -> None:
    """Do what ``faulthandler.dump_traceback_later()`` does, and note it."""
    global _armed
    file = sys.stderr if file is None else file
    options = {"repeat": repeat, "file": file, "exit": exit, **more}
    _set(timeout, **options)
    _armed = timeout, options, time.monotonic()


def cancel_dump_traceback_later() -> None:
    """Do what ``faulthandler.cancel_dump_traceback_later()`` does, and note it."""
    global _armed
    _cancel()
    _armed = None
