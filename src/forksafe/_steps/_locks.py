"""Rows 15, 22 to 24, 26: in the child no vanished thread is importing, holds a lock or waits.

We free the locks that another thread provably held (row 26: see `_with_bodies`), among them those
inside of queues, events and semaphores (row 23); and the held ones among those in the globals and
the classes of the standard library's modules (row 24), unless this thread is inside the module or a
with-body of the lock. What a lock guards may be half changed. `logging`, `random` and `threading`
themselves accept that, since the alternative is a certain hang.
"""

from __future__ import annotations

import os
import sys
from _thread import LockType, RLock, get_ident
from threading import Condition

from .._fork_event import KEPT, NOTHING, ForkEvent, Step, UnknownLayout, expect
from .._fork_event._threads import UNREADABLE, interest, others_can_be_read, stack_of
from .._fork_event._typing import Any
from .._fork_event._with_bodies import READS, WAIT, free, free_lock, locals_of

_BOOTSTRAP = "_frozen_importlib"
_STANDARD: Any = getattr(sys, "stdlib_module_names", None)  # since 3.10
_HOME = os.path.dirname(os.__file__)
# At-fork hooks of the standard library take these, and free them in the child.
_HOOKED = ("_global_shutdown_lock",)
_DEQUE = type(Condition()._waiters)  # type: ignore[attr-defined] # private
_MARK = "_forksafe_process"
_BARRIER = "threading:Barrier.wait"
interest("threading:Condition.wait", variables=(), sleeps=("waiter", "acquire"))
interest(_BARRIER)

# Replaced by every reset beside other threads; a Condition that bears it is of this process.
_now: object = None


class ImportsStep(Step):
    """Row 15: an import that another thread was in the middle of never happened in the child.

    The half-made module leaves ``sys.modules``, and its lock is free. Of a package the finished
    submodules are forgotten too: their code holds the package that is gone. Extension modules stay,
    as many of them can be loaded but once per process. What the forking thread itself imports goes
    on, in both processes. The global import lock is CPython's own care (``PyOS_BeforeFork``).
    """

    name = "imports"
    modules = (_BOOTSTRAP,)
    looks = (f"{_BOOTSTRAP}:_module_locks",)
    late = True

    def reset(self, fork: ForkEvent, note: None) -> bool:
        locks = _import_locks()
        if not locks:
            return False
        me = get_ident()
        names, mine = [], set()
        for name, lock in locks.items():
            # In place: the forking thread may be waiting for it, if a signal handler forks there.
            lock.lock._at_fork_reinit()
            lock.wakeup._at_fork_reinit()
            # The waiters are a number up to 3.11, a list since (cpython gh-91351).
            lock.waiters = type(lock.waiters)()
            if lock.owner == me:
                mine.add(name)
            elif lock.count:
                names.append(name)
                lock.owner, lock.count = None, type(lock.count)()
        # By thread id, which can recur. Since 3.12 (gh-106176) the dict is inside a weak mapping.
        blocking: Any = getattr(sys.modules[_BOOTSTRAP], "_blocking_on", None)
        blocking = getattr(blocking, "data", blocking)
        expect(isinstance(blocking, dict), "importlib._bootstrap._blocking_on is no dict")
        for thread in [thread for thread in blocking if thread != me]:
            del blocking[thread]
        _forget(names, mine)
        return bool(names)


def _forget(names: list[str], mine: set[str]) -> None:
    """Take the half-initialised modules among `names` out of ``sys.modules``."""
    packages: tuple[str, ...] = ()
    for name in names:
        module = sys.modules.get(name)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            KEPT.append(sys.modules.pop(name))
            package, _, child = name.rpartition(".")
            namespace = getattr(sys.modules.get(package), "__dict__", {})
            if namespace.get(child) is module:
                del namespace[child]
            if hasattr(module, "__path__"):
                packages += (name + ".",)
    for name, module in list(sys.modules.items()) if packages else ():
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        extension = type(loader).__name__ == "ExtensionFileLoader"
        if name.startswith(packages) and name not in mine and not extension:
            KEPT.append(sys.modules.pop(name))


def _import_locks() -> dict[str, Any]:
    references: Any = getattr(sys.modules[_BOOTSTRAP], "_module_locks", None)
    expect(isinstance(references, dict), "importlib._bootstrap._module_locks is no dict")
    locks = {name: lock for name, ref in list(references.items()) if (lock := ref()) is not None}
    for lock in locks.values():
        numbers = [type(getattr(lock, name, None)) for name in ("count", "waiters")]
        parts = [getattr(lock, name, None) for name in ("lock", "wakeup")]
        known = {*numbers} <= {int, list} and hasattr(lock, "owner")
        known = known and all(hasattr(each, "_at_fork_reinit") for each in parts)
        expect(known, "importlib._bootstrap._ModuleLock has other attributes")
    return locks


class LocksStep(Step):
    name = "locks"
    looks = (":beside_threads",)
    late = True

    def __init__(self) -> None:
        # The locks of the standard library's modules, each with the id of its module's globals.
        self._of_modules: dict[Any, int] = {}
        self._seen: set[str] = set()
        self._count = 0  # of modules, when they were looked into

    def note(self, fork: ForkEvent) -> Any:
        if len(sys.modules) != self._count:
            self._look_into_modules()
        # Most are free, and the child does not touch those. Not every build says which are held.
        known = READS and others_can_be_read()
        taken = [e for e in self._of_modules if not known or "unlocked" not in repr(e)]
        stacks: Any = fork.stacks
        if taken:
            taken = [e for e in taken if not known or not getattr(e, "_is_owned", bool)()]
            own = {id(frame.f_globals) for frame in stack_of(sys._getframe())}
            mine = {id(one.lock) for one in stacks.own_held}
            taken = [e for e in taken if self._of_modules[e] not in own and id(e) not in mine]
        proven = [one for one in stacks.held if fork.free_locks or one.of_standard_library]
        return (taken, proven) if taken or proven or not known else NOTHING

    def reset(self, fork: ForkEvent, note: Any) -> bool | str:
        if note is None:
            return False
        taken, proven = note
        count = sum(map(free_lock, taken)) + sum(map(free, proven))
        if count:
            return f"done: {count} freed"
        return False if others_can_be_read() else UNREADABLE

    def _look_into_modules(self) -> None:
        self._count = len(sys.modules)
        for name in set(sys.modules) - self._seen:
            module = sys.modules.get(name)
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                self._count = 0
                continue  # half imported: its locks are still to come
            self._seen.add(name)
            if module is not None and is_standard(name, module):
                namespace = getattr(module, "__dict__", {})
                for key, value in list(namespace.items()):
                    defined_here = type(value) is type and value.__module__ == name
                    for each in list(vars(value).values()) if defined_here else (value,):
                        if isinstance(each, (LockType, RLock)) and key not in _HOOKED:
                            self._of_modules[each] = id(namespace)


def is_standard(name: str, module: Any) -> bool:
    package = name.partition(".")[0]
    if package == "builtins" or (_STANDARD is not None and package not in _STANDARD):
        return False  # a lock in builtins is one that the program has put there
    origin = str(getattr(getattr(module, "__spec__", None), "origin", None))
    at_home = origin.startswith(_HOME) and "-packages" not in origin
    return at_home or origin in ("built-in", "frozen")


class ConditionsStep(Step):
    """Row 22: the waiters of vanished threads, each of which would swallow a ``notify()``.

    Nothing lists the Conditions of a process. To take out the waiters that stacks show is not
    enough, as `before` hooks of other modules let threads go on. So in a child ``_waiters`` is a
    property. At the first use of a Condition it takes out all waiters but this very thread (a
    signal handler forks inside of its wait). An access costs 0.1 microseconds more.
    """

    name = "conditions"
    looks = (":beside_threads",)
    late = True

    def note(self, fork: ForkEvent) -> tuple[list[list[Any]], list[tuple[Any, int]]]:
        if vars(Condition).get("_waiters") not in (None, _waiters):
            raise UnknownLayout("threading.Condition._waiters is no plain attribute")
        frames = stack_of(sys._getframe())
        waits = [locals_of(frame, "self", "waiter") for frame in frames if frame.f_code is WAIT]
        own, others = (fork.stacks.own, fork.stacks.others) if fork.stacks else ({}, {})
        waiting = [barrier for (barrier,) in own.get(_BARRIER, ())]
        barriers = [barrier for (barrier,) in others.get(_BARRIER, ())]
        return waits, [(each, sum(one is each for one in waiting)) for each in barriers]

    def reset(self, fork: ForkEvent, note: Any) -> bool:
        global _now
        waits, barriers = self.note(fork) if note is None else note
        _now = object()
        for condition, waiter in waits:
            _take_out(vars(condition), waiter)
        Condition._waiters = _waiters  # type: ignore[attr-defined]
        for barrier, count in barriers:
            counts = getattr(barrier, "_count", None), getattr(barrier, "_state", None)
            expect([type(each) for each in counts] == [int, int], "a Barrier without its counts")
            barrier._count = count
            if barrier._state > 0 and not count:
                barrier._state = 0  # draining, or resetting, until those who left it have left
        return True

    def leave(self) -> None:
        if vars(Condition).get("_waiters") is _waiters:
            del Condition._waiters  # type: ignore[attr-defined]


def _take_out(state: dict[str, Any], own: object = None) -> None:
    """Take the waiters of vanished threads out, and leave this thread's `own` where it is."""
    state[_MARK] = _now
    waiters: Any = state.get("_waiters")
    if type(waiters) is _DEQUE:
        state["_waiters"] = _DEQUE(each for each in waiters if each is own)


def _get(condition: Any) -> Any:
    state = condition.__dict__
    if state.get(_MARK) is not _now:
        _take_out(state)
    try:
        return state["_waiters"]
    except KeyError:
        raise AttributeError("_waiters") from None


def _set(condition: Any, waiters: Any) -> None:
    condition.__dict__["_waiters"] = waiters


_waiters = property(_get, _set)
