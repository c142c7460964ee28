"""Row 15: an import that another thread was in the middle of never happened in the child.

The thread leaves a module that holds half of its names, and a lock that nobody releases. The child
forgets the import: the module leaves ``sys.modules``, the lock is free. Of a package that was
half-way the finished submodules are forgotten too: their code holds the package that is gone.
Extension modules stay, as many of them can be loaded but once per process. What the forking thread
itself imports stays as it is, lock included: it goes on importing, in both processes. The global
import lock is CPython's own care (``PyOS_BeforeFork``: nobody is inside it at a fork).
"""

from __future__ import annotations

import sys
from _thread import get_ident

from .._fork_event import ForkEvent
from .._fork_event._step import NOTHING, Step, expect
from .._fork_event._typing import Any

_BOOTSTRAP = "_frozen_importlib"
_forgotten: list[object] = []  # kept, so that nothing is finalized inside the fork


class ImportsStep(Step):
    name = "imports"
    modules = (_BOOTSTRAP,)

    def note(self, fork: ForkEvent) -> Any:
        # Other threads may begin an import until the fork.
        under_way = getattr(sys.modules[_BOOTSTRAP], "_module_locks", True)
        return NOTHING if fork.alone and not under_way else None

    def reset(self, fork: ForkEvent, note: None) -> bool:
        locks = _locks()
        if not locks:
            return False
        me = get_ident()
        names = _foreign(locks, me)
        for lock in locks.values():
            # In place: the forking thread may be waiting for it, if a signal handler forks there.
            lock.lock._at_fork_reinit()
            lock.wakeup._at_fork_reinit()
            # Numbers up to 3.11, lists since (cpython gh-91351).
            lock.waiters = type(lock.waiters)()
            if lock.owner != me:
                lock.owner = None
                lock.count = type(lock.count)()
        # By thread id, which a thread of the child can have again. A plain dict up to 3.11, and
        # since then (cpython gh-106176) one with weak values around it.
        blocking: Any = getattr(sys.modules[_BOOTSTRAP], "_blocking_on", None)
        blocking = getattr(blocking, "data", blocking)
        expect(isinstance(blocking, dict), "importlib._bootstrap._blocking_on is no dict")
        for thread in [thread for thread in blocking if thread != me]:
            del blocking[thread]
        _forget(names, mine={name for name, lock in locks.items() if lock.owner == me})
        return bool(names)


def _forget(names: list[str], mine: set[str]) -> None:
    """Take the half-initialised modules among `names` out of ``sys.modules``."""
    packages: tuple[str, ...] = ()
    for name in names:
        module = sys.modules.get(name)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            # Else it is not there yet, or already whole.
            _forgotten.append(sys.modules.pop(name))
            package, _, child = name.rpartition(".")
            namespace = getattr(sys.modules.get(package), "__dict__", {})
            if namespace.get(child) is module:
                del namespace[child]
            if hasattr(module, "__path__"):
                packages += (name + ".",)
    external = sys.modules.get("_frozen_importlib_external")
    extension: Any = getattr(external, "ExtensionFileLoader", ())
    for name, module in list(sys.modules.items()) if packages else ():
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        if name.startswith(packages) and name not in mine and not isinstance(loader, extension):
            _forgotten.append(sys.modules.pop(name))


def half_imported() -> list[str]:
    """Return the names of the modules that other threads are importing. Reads only."""
    return _foreign(_locks(), get_ident())


def _foreign(locks: dict[str, Any], me: int) -> list[str]:
    return [name for name, lock in locks.items() if lock.count and lock.owner != me]


def _locks() -> dict[str, Any]:
    references: Any = getattr(sys.modules[_BOOTSTRAP], "_module_locks", None)
    expect(isinstance(references, dict), "importlib._bootstrap._module_locks is no dict")
    found = {name: reference() for name, reference in list(references.items())}
    locks = {name: lock for name, lock in found.items() if lock is not None}
    for lock in locks.values():
        expect(
            hasattr(lock, "owner")
            and type(getattr(lock, "count", None)) in (int, list)
            and type(getattr(lock, "waiters", None)) in (int, list)
            and hasattr(getattr(lock, "lock", None), "_at_fork_reinit")
            and hasattr(getattr(lock, "wakeup", None), "_at_fork_reinit"),
            "importlib._bootstrap._ModuleLock has other attributes",
        )
    return locks
