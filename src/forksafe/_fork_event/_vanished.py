"""Threads that a fork made in C has left behind in name only.

Where a fork runs Python's at-fork hooks, ``threading`` marks all threads but the forking one as
ended. Where it runs none, the child's ``threading`` believes that the parent's threads live on: it
lists them, and joins those that are no daemons when the process ends, for ever (uWSGI kills such a
worker after its mercy of 60 seconds). So this does what that hook would have done.

Source: ``threading._after_fork``; for Python 3.13 and later also ``_PyThread_AfterFork`` in
Modules/_threadmodule.c, which marks the handle of each thread before that.
"""

from __future__ import annotations

import sys
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def forget_vanished_threads() -> None:
    """Mark every thread but this one as ended; raise nothing."""
    threading: Any = sys.modules.get("threading")
    try:
        for thread in (*threading._enumerate(), *threading._dangling):
            # The attribute's name in Python 3.14 and later, and the one in 3.13.
            handle: Any = getattr(thread, "_os_thread_handle", getattr(thread, "_handle", None))
            if thread.ident not in (None, get_ident()) and hasattr(handle, "_set_done"):
                handle._set_done()
        threading._after_fork()
        if hasattr(threading, "_thread_shutdown"):
            threading._thread_shutdown = _join_threads
    except Exception:  # noqa: S110 - in the child, before all else: as far as it goes
        pass


def _join_threads() -> None:
    """Join the threads of this process, as ``_thread._shutdown`` of Python 3.13 and later does.

    That one goes by a list of its own, in C, from which nothing removes the parent's threads.
    """
    threading = sys.modules["threading"]
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
