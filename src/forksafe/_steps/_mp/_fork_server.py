"""Row 9: the parent's forkserver is the parent's; the child starts one of its own on demand.

``ForkServer.ensure_running()`` waits, without blocking, for the server's pid. That is no child of
the forked child's, so every forkserver ``Process`` there raises ChildProcessError. A server ends
when nobody holds the write end of its "alive" pipe any more, so the child closes its copy.

The server itself forks its children by ``os.fork()``, and keeps its address, for it has neither pid
nor pipe. ``_inherited_fds`` stay as well: in the child of a fork they are descriptors as before.
"""

from __future__ import annotations

import os
from types import ModuleType

from ..._fork_event import ForkEvent, _who
from ..._fork_event._step import Step, expect
from ..._fork_event._typing import Any, Iterator

# billiard has no _forkserver_pid, _forkserver_authkey is of 3.14 (gh-97514).
_FORGOTTEN = {f"_forkserver_{name}" for name in ("alive_fd", "pid", "address", "authkey")}


class ForkServerStep(Step):
    name = "forkserver"
    modules = _who.submodules("forkserver")

    def reset(self, fork: ForkEvent, note: None) -> bool:
        done = False
        for _module, server in _servers():
            if server._lock.locked():  # a thread that is gone was just starting a server
                server._lock._at_fork_reinit()
                done = True
            alive_fd, state = server._forkserver_alive_fd, vars(server)
            if alive_fd is None and state.get("_forkserver_pid") is None:
                continue
            state.update(dict.fromkeys(state.keys() & _FORGOTTEN))
            done = True
            if alive_fd is not None:
                try:
                    os.close(alive_fd)
                except OSError:
                    pass  # a daemon closes all it has
        return done


def live_fork_servers() -> Iterator[tuple[ModuleType, Any]]:
    """Yield the servers that this process started or was started by, each with its module."""
    for module, server in _servers():
        if server._forkserver_alive_fd is not None:
            yield module, server


def _servers() -> Iterator[tuple[ModuleType, Any]]:
    for module in _who.loaded(ForkServerStep.modules):
        server = getattr(module, "_forkserver", None)
        lock = getattr(server, "_lock", None)
        known = hasattr(lock, "_at_fork_reinit") and hasattr(server, "_forkserver_alive_fd")
        expect(known, f"{module.__name__}: no lock to start afresh, or no pipe")
        yield module, server
