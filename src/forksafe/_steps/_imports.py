"""Row 15: an import that another thread was in the middle of never happened in the child.

The thread is gone; what it leaves in the child is a module that holds half of its names, and a lock
that nobody releases. So the child forgets the import: the module leaves ``sys.modules`` and the
lock is free, and whoever imports it in the child imports it from scratch. Of a package that was
half-way, the finished submodules are forgotten too: it is their import that binds them to the
package, and their code holds the package that is gone. Extension modules stay, as many of them
can be loaded but once per process.

What the forking thread itself is importing stays as it is, lock included: it goes on importing, in
both processes.

The state is that of ``importlib._bootstrap``: ``_module_locks``, by module name, holds the locks of
the imports under way, so no walk over ``sys.modules`` is needed to find that there are none. The
global import lock is CPython's own care (``PyOS_BeforeFork``: nobody is inside it at a fork).
"""

from __future__ import annotations

import sys
from _thread import get_ident

from .._fork_event._step import NOTHING, Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from .._fork_event import ForkEvent

_BOOTSTRAP = "_frozen_importlib"


class ImportsStep(Step):
    name = "imports"
    modules = (_BOOTSTRAP,)

    def __init__(self) -> None:
        # Kept, so that nothing is finalized inside the fork.
        self._forgotten: list[Any] = []

    def note(self, fork: ForkEvent) -> Any:
        # Other threads may begin an import until the fork.
        under_way = getattr(sys.modules[_BOOTSTRAP], "_module_locks", True)
        return NOTHING if fork.alone and not under_way else None

    def reset(self, fork: ForkEvent, note: None) -> bool:
        # Looked at here and not before the fork: until then other threads go on importing.
        bootstrap = sys.modules[_BOOTSTRAP]
        locks = _locks(bootstrap) if getattr(bootstrap, "_module_locks", True) else ()
        if not locks:
            return False
        me = get_ident()
        names = foreign(locks, me)
        for _name, lock in locks:
            _without_the_others(lock, me)
        _forget_waiters(bootstrap, me)
        forgotten = _forget(names, {name for name, lock in locks if lock.owner == me})
        _bind_finished(names)
        if forgotten:
            self._forgotten = forgotten
        return bool(names)


def half_imported() -> list[str]:
    """Return the names of the modules that other threads are importing. Reads only."""
    return foreign(_locks(sys.modules[_BOOTSTRAP]), get_ident())


def foreign(locks: list[tuple[str, Any]], me: int) -> list[str]:
    """Return the names of the modules whose locks are held by other threads than `me`."""
    return [name for name, lock in locks if lock.count and lock.owner != me]


def _references(bootstrap: ModuleType) -> dict[str, Any]:
    references: Any = getattr(bootstrap, "_module_locks", None)
    expect(isinstance(references, dict), "importlib._bootstrap._module_locks is no dict")
    return references  # type: ignore[no-any-return] # its shape was checked


def _locks(bootstrap: ModuleType) -> list[tuple[str, Any]]:
    references = _references(bootstrap)
    lock_type = getattr(bootstrap, "_ModuleLock", None)
    expect(lock_type is not None, "importlib._bootstrap has no _ModuleLock")
    found = []
    for name, reference in list(references.items()):
        lock = reference()
        if lock is not None:
            expect(type(lock) is lock_type, "a lock in _module_locks is no _ModuleLock")
            expect(
                hasattr(lock, "owner")
                and type(getattr(lock, "count", None)) in (int, list)
                and type(getattr(lock, "waiters", None)) in (int, list)
                and hasattr(getattr(lock, "lock", None), "_at_fork_reinit")
                and hasattr(getattr(lock, "wakeup", None), "_at_fork_reinit"),
                "importlib._bootstrap._ModuleLock has other attributes",
            )
            found.append((name, lock))
    return found


def _without_the_others(lock: Any, me: int) -> None:
    # In place: the forking thread may be waiting for it, if a signal handler forks there.
    lock.lock._at_fork_reinit()
    lock.wakeup._at_fork_reinit()
    # Numbers up to 3.11, lists since (cpython gh-91351).
    lock.waiters = type(lock.waiters)()
    if lock.owner != me:
        lock.owner = None
        lock.count = type(lock.count)()


def _forget_waiters(bootstrap: ModuleType, me: int) -> None:
    # By thread id, which a thread of the child can have again. A plain dict up to 3.11, and since
    # then (cpython gh-106176) one with weak values around it.
    blocking = getattr(bootstrap, "_blocking_on", None)
    blocking = getattr(blocking, "data", blocking)
    expect(isinstance(blocking, dict), "importlib._bootstrap._blocking_on is no dict")
    assert blocking is not None
    for thread in list(blocking):
        if thread != me:
            del blocking[thread]


def _forget(names: list[str], mine: set[str]) -> list[Any]:
    """Take the half-initialised modules among `names` out of ``sys.modules``."""
    forgotten = []
    packages = []
    for name in names:
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        if module is None or not getattr(spec, "_initializing", False):
            continue  # not there yet, or already whole
        del sys.modules[name]
        _unbind(name, module)
        forgotten.append(module)
        if hasattr(module, "__path__"):
            packages.append(name + ".")
    if packages:
        prefixes = tuple(packages)
        for name, module in list(sys.modules.items()):
            if name.startswith(prefixes) and name not in mine and not _is_extension(module):
                del sys.modules[name]
                forgotten.append(module)
    return forgotten


def _unbind(name: str, module: object) -> None:
    package, _, child = name.rpartition(".")
    namespace = getattr(sys.modules.get(package), "__dict__", None)
    if namespace is not None and namespace.get(child) is module:
        del namespace[child]


def _bind_finished(names: list[str]) -> None:
    """Do what comes last in an import, for modules that lack nothing else.

    The lock is held a little longer than the module takes, until it is bound to its package.
    """
    for name in names:
        package, _, child = name.rpartition(".")
        module = sys.modules.get(name)
        namespace = getattr(sys.modules.get(package), "__dict__", None)
        if module is not None and namespace is not None:
            namespace.setdefault(child, module)


def _is_extension(module: object) -> bool:
    external = sys.modules.get("_frozen_importlib_external")
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return isinstance(loader, getattr(external, "ExtensionFileLoader", ()))
