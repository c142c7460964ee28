"""Locks that are held at this moment, found through what loaded modules refer to. Opt-in.

A lock that another thread holds at the fork stays locked in the child for ever. Which are held is
a matter of the moment: one audit proves little, one that finds a lock twice proves something. A
plain lock does not know who holds it; one of this thread's own is told too.

The walk goes through dictionaries, slots and containers, breadth first, so that the shortest name
is the one told, and stops after a second. It runs no code of the program.
"""

from __future__ import annotations

import sys
import time
from _thread import LockType, RLock, get_ident
from collections import deque
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)

from .._hazard import ACTION, ADVICE, FIXED, Hazard
from . import _loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    from ._scene import Scene

WANTED: tuple[str, ...] = ()

# Of this thread's own work, where that can be told; PyPy compiles during its first.
_SECONDS = 3.0 if sys.implementation.name == "pypy" else 1.0
_clock = getattr(time, "thread_time", time.monotonic)
_BATCH = 1000  # objects between two looks at the clock
_LONGEST = 10_000  # elements of one container

_LEAVES = (
    str, bytes, bytearray, int, float, complex, bool, type(None), range, memoryview,
    FunctionType, BuiltinFunctionType, CodeType, GetSetDescriptorType, MemberDescriptorType,
)  # fmt: skip

# Python itself starts these afresh in the child, and a logging.Handler's `lock`.
_BY_PYTHON = (
    "threading._active_limbo_lock",
    "threading._shutdown_locks_lock",
    "logging._lock",
    "concurrent.futures.thread._global_shutdown_lock",
)

_HELD_BY_DESIGN = "threading._shutdown_locks"  # of 3.9 to 3.12: each while its thread lives

# The steps start these afresh: the resource tracker's, and what is in the after-fork registry.
_BY_STEPS = (
    "multiprocessing.resource_tracker:ResourceTracker",
    "multiprocessing.util:ForkAwareThreadLock",
)


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    deadline = _clock() + _SECONDS
    seen: set[int] = set()
    todo: deque[tuple[Any, str, Any]] = deque()
    for name in list(sys.modules):
        todo.append((sys.modules.get(name), name, None))
    kept = []  # so that no id in `seen` is used again meanwhile
    count = 0
    while todo:
        thing, path, holder = todo.popleft()
        count += 1
        if count % _BATCH == 0 and _clock() > deadline:
            yield Hazard(
                "unknown",
                ADVICE,
                f"not all locks were looked at: {_SECONDS:g} s were over",
                subject="locks",
                detail=f"{len(todo)} objects were left; those nearest to the modules come first.",
            )
            return
        if id(thing) in seen or path == _HELD_BY_DESIGN:
            continue
        seen.add(id(thing))
        kept.append(thing)
        if issubclass(type(thing), (LockType, RLock)):
            if _is_held_elsewhere(thing):
                yield _hazard(thing, path, holder)
            continue
        todo.extend((part, name, thing) for part, name in _parts(thing, path))


def _parts(thing: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Yield what `thing` refers to, by names that a person would write."""
    kind = type(thing)
    # A Thread's own locks are locked while it lives.
    if kind in _LEAVES or _is_a(thing, "threading:Thread"):
        return
    if kind is dict:
        for key, value in list(thing.items())[:_LONGEST]:
            if type(value) not in _LEAVES:
                yield value, f"{path}[{key!r}]" if type(key) in (str, int) else f"{path}[...]"
        return
    if kind in (list, tuple, set, frozenset, deque):
        for place, value in enumerate(list(thing)[:_LONGEST]):
            if type(value) not in _LEAVES:
                yield value, f"{path}[{place}]"
        return
    values = dict(_attributes(thing))
    # What waits in a Condition are locks, each locked by design by the one who waits.
    values.pop("_waiters", None)
    for name, value in values.items():
        if type(value) not in _LEAVES and type(value) is not ModuleType:
            yield value, f"{path}.{name}"


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and values, by the interpreter's own descriptors only."""
    if issubclass(type(thing), type):  # isinstance() asks the object, a list[int] says yes
        yield from _names(thing)
        return
    for cls in type.__dict__["__mro__"].__get__(type(thing)) or ():
        for name, member in _names(cls):
            if name == "__dict__" and type(member) is GetSetDescriptorType:
                try:
                    values = member.__get__(thing)
                except AttributeError:
                    continue  # PyPy: objects of C libraries
                if type(values) is dict:
                    yield from list(values.items())
            elif type(member) is MemberDescriptorType and not name.startswith("__"):
                try:
                    yield name, member.__get__(thing)
                except AttributeError:
                    pass  # a slot that is empty
    if issubclass(type(thing), ModuleType):
        names = object.__getattribute__(thing, "__dict__")
        yield from list(names.items())


def _names(cls: type) -> list[tuple[str, Any]]:
    names = type.__dict__["__dict__"].__get__(cls)
    return list(names.items()) if names else []  # none: C code has not made it ready yet


def _is_a(thing: Any, path: str) -> bool:
    cls = _loaded.find(path)
    return isinstance(cls, type) and issubclass(type(thing), cls)


def _is_held_elsewhere(lock: Any) -> bool:
    if isinstance(lock, RLock):
        # Only its text tells the owner: "<locked _thread.RLock object owner=123 count=1 ...>".
        text = repr(lock)
        return text.startswith("<locked") and f"owner={get_ident()} " not in text
    return bool(lock.locked())


def _hazard(lock: Any, path: str, holder: Any) -> Hazard:
    severity: Literal["action", "fixed", "advice"] = ACTION
    remedy = (
        "take it for the fork, and release it in both processes; or make it anew in the child: "
        "os.register_at_fork(after_in_child=...)"
    )
    if path in _BY_PYTHON or _is_a(holder, "logging:Handler"):
        severity = ADVICE
        remedy = "none needed: Python starts it afresh in the child"
    elif any(_is_a(holder, path) for path in _BY_STEPS):
        severity = FIXED
        remedy = "nothing under forksafe: it starts afresh in the child"
    kind = "re-entrant lock" if isinstance(lock, RLock) else "lock"
    return Hazard(
        "lock",
        severity,
        f"the {kind} {path} is held at this moment",
        subject=path,
        detail="A child that is forked while another thread holds it finds it locked for ever.",
        remedy=remedy,
        where=path,
    )
