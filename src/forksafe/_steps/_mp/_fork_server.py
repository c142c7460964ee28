"""Row 9: the parent's forkserver is the parent's; the child starts one of its own on demand.

``ForkServer.ensure_running()`` waits, without blocking, for the server's pid. In a forked child
that pid is no child of its own, and every forkserver ``Process`` there raises ChildProcessError,
before 3.14 for whoever chose that start method, since 3.14 for everybody.

A server ends when nobody holds the write end of its "alive" pipe any more, so the child closes
its copy: else the parent's server would outlive the parent for as long as the child lives.

Three more processes run this step, and keep what is theirs:

- the server itself, which forks its children by ``os.fork()``: it knows nothing but its own
  address, and gives its child the descriptors after the fork;
- a child of a server: it holds the server's pipe, and no pid. Its forks let go of the pipe;
- whoever unpickles a process object: ``_inherited_fds`` are this process's descriptors in the
  child of a fork too, and stay.
"""

from __future__ import annotations

import os

from ..._fork_event import _who
from ..._fork_event._step import Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

    from ..._fork_event import ForkEvent

_MODULES = _who.submodules("forkserver")

# Of 3.9 to 3.15: billiard has no _forkserver_pid, _forkserver_authkey is of 3.14 (gh-97514).
_FORGOTTEN = (
    "_forkserver_alive_fd",
    "_forkserver_pid",
    "_forkserver_address",
    "_forkserver_authkey",
)


class ForkServerStep(Step):
    name = "forkserver"
    modules = _MODULES

    def reset(self, fork: ForkEvent, note: None) -> bool:
        done = False
        for _module, server in _servers():
            held = server._lock.locked()
            if held:
                # A thread that is gone was just starting a server.
                server._lock._at_fork_reinit()
            alive_fd = server._forkserver_alive_fd
            if alive_fd is not None or getattr(server, "_forkserver_pid", None) is not None:
                state = vars(server)
                for attribute in _FORGOTTEN:
                    if attribute in state:
                        state[attribute] = None
                if alive_fd is not None:
                    _close(alive_fd)
                done = True
            done = done or held
        return done


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        pass  # a daemon closes all it has


def live_fork_servers() -> Iterator[tuple[ModuleType, Any]]:
    """Yield the servers that this process started or was started by, each with its module."""
    for module, server in _servers():
        if server._forkserver_alive_fd is not None:
            yield module, server


def _servers() -> Iterator[tuple[ModuleType, Any]]:
    for module in _who.loaded(_MODULES):
        server = getattr(module, "_forkserver", None)
        lock = getattr(server, "_lock", None)
        expect(
            hasattr(lock, "_at_fork_reinit"),
            f"{module.__name__}: no lock to start afresh",
        )
        for attribute in ("_forkserver_alive_fd", "_forkserver_address"):
            expect(hasattr(server, attribute), f"{module.__name__}: no {attribute}")
        yield module, server
