"""Row 14: text that waits in the buffers of stdout and stderr is written once, by the parent.

A fork copies the buffers, and both processes flush their copy. So they are flushed before the
fork, as ``multiprocessing.popen_fork`` does.
"""

from __future__ import annotations

import sys

from .._step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._forking import Forking

__all__ = ["StdStreamsStep"]


class StdStreamsStep(Step):
    name = "std streams"

    def note(self, fork: Forking) -> None:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # noqa: S110 - None, closed, a full disk: the next write will tell
                pass

    def reset(self, fork: Forking, note: None) -> bool:
        return False
