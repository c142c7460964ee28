"""Live Python threads, and the locks that they hold: a fork keeps the thread that calls it alone.

A thread counts when the interpreter has a frame for it. Greenlets, which gevent and eventlet put
into ``threading``'s list, have none, and a fork keeps them. Without a GIL other threads run while
their frames are read, which crashes the process: there ``threading``'s own list must do.
"""

from __future__ import annotations

import gc
import re
import sys
import threading
from _thread import LockType, RLock, get_ident
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from types import FrameType

from .._fork_event import ForkEvent
from .._fork_event._threads import others_can_be_read, stack_of
from .._fork_event._typing import Any, Iterator
from .._fork_event._with_bodies import held_by, load
from .._hazard import ACTION, ADVICE, FIXED, AllowList, Hazard, Severity, tell
from .._libraries import LIBRARIES, UNKNOWN, Library
from .._libraries._heap import PYPY, instances, loaded, names
from .._steps._locks import is_standard
from ._scene import Scene, name_of, path_of

_MACHINERY = "threading queue concurrent.futures selectors _pyrepl"  # where every thread waits
_MADE_UP = re.compile(r"(Thread|Dummy)-\d+( \(.*\))?")  # names, by threading
_MAIN = Library("", "fork in the main thread. In the child of another thread sys.exit() ends with "
                "status 0 and runs no exit handlers, for it ends no more than a thread: end that "
                "child by os._exit(status)")  # fmt: skip
# Locks of objects that Python itself, or a step, starts afresh in the child.
_AFRESH = ("logging:Handler.lock", "multiprocessing.resource_tracker:ResourceTracker._lock",
           "multiprocessing.util:ForkAwareThreadLock._lock")  # fmt: skip
# Modules whose objects refer to locks but give them no name; the last one is our own proof.
_PASSED_OVER = ("builtins", "collections", "forksafe._fork_event._with_bodies")
_OF_A_THREAD = (threading.Thread, threading.local)  # on PyPy a local refers to all of its thread


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield the threads that a fork by this one would lose."""
    # Asked both before and after, so that a thread that starts or ends meanwhile has its name.
    before = active()
    frames: Any = frames_of_others()
    threads = {thread.ident: thread for thread in (*active(), *before)}
    if frames is None:
        frames = {i: None for i, t in threads.items() if t.native_id != threading.get_native_id()}
    for ident, frame in frames.items():
        thread, calls = threads.get(ident), [*stack_of(frame)]
        if thread is not None or any(module_of(call) != "threading" for call in calls):
            yield _hazard(scene, thread, calls)
    frames.clear()  # their locals are not ours to keep


def frames_of_others() -> dict[int, FrameType] | None:
    """Return the innermost frame of each other thread; None where they must not be read."""
    if not others_can_be_read():
        return None
    here = frames_of_others.__code__  # get_ident() would not do: gevent gives that of a greenlet
    return {ident: f for ident, f in sys._current_frames().items() if f.f_code is not here}


def active() -> list[threading.Thread]:
    """Return the threads that ``threading`` knows, those that are just starting among them."""
    # Not threading.enumerate(): its lock may be held by the frame that a signal handler interrupts.
    started = (getattr(threading, name, {}) for name in ("_limbo", "_active"))
    return [thread for threads in started for thread in list(threads.values())]


def _hazard(scene: Scene, thread: threading.Thread | None, frames: list[FrameType]) -> Hazard:
    target = _target(thread)
    owner = getattr(target, "__self__", None)
    if target is not None:
        # The function it was started with counts: sentry-sdk and others have frames in all threads.
        label = name_of(target)
        classes = (type(thread), *type(owner).__mro__)
        modules = [label.partition(":")[0], *(str(cls.__module__) for cls in classes)]
    elif not frames:
        label, modules = path_of(thread), []
    else:
        modules = [module_of(frame) for frame in frames]
        outer = next((f for f in reversed(frames) if module_of(f) != "threading"), frames[-1])
        label = f"{module_of(outer)}:{getattr(outer.f_code, 'co_qualname', outer.f_code.co_name)}"
    name = "(no name)" if thread is None else str(thread.name)
    known = _MAIN if thread is threading.main_thread() else _owner(label, modules, name)
    answers = AllowList(known.answered_by.split())
    told = [hazard for hazard in scene.found if hazard in answers]
    if known.targets and known.answered_by and not told:
        known = UNKNOWN
    idle = bool(frames) and frames[0].f_code is getattr(target, "__code__", None)
    severity, remedy = scene.judge(*verdict(known, owner, told, idle), thread, owner)
    prepared = f"as the {told[0].kind} tells" if told else "which is prepared for that"
    becomes = {ACTION: "", FIXED: ", which does without it", ADVICE: f", {prepared}"}
    # A raw thread is of _thread.start_new_thread(), or of C code that called into Python.
    sort = "raw" if thread is None else "daemon" if thread.daemon else "non-daemon"
    places = [f for f in frames if not _is_in(module_of(f), _MACHINERY)] or frames
    place = (f"It stands at {f.f_code.co_filename}:{f.f_lineno}. " for f in places)
    by_owner = f"{known.name}:{label.partition(':')[2]}" if known.name else label
    subject = by_owner if _MADE_UP.fullmatch(name) else name
    whose = f" of {known.name}" if known.name else ""
    return tell("thread", subject, label, sort, name, whose, becomes[severity], severity=severity,
                remedy=remedy, detail=(next(place, ""),), library=known.name)  # fmt: skip


def _owner(target: str, modules: list[str], name: str) -> Library:
    started = (k for k in LIBRARIES if any(fnmatchcase(target, p) for p in k.targets.split()))
    inside = (k for k in LIBRARIES if any(_is_in(module, k.modules) for module in modules))
    named = (k for k in LIBRARIES if any(fnmatchcase(name, p) for p in k.names.split()))
    return next(chain(started, inside, named), UNKNOWN)


def verdict(
    known: Library, owner: object = None, told: list[Hazard] | None = None, idle: bool = False
) -> tuple[Severity, str]:
    """Return severity and remedy of a library's thread; `told` are hazards that answer for it."""
    if told:  # what needs action is told once, by them
        return FIXED if {hazard.severity for hazard in told} == {FIXED} else ADVICE, known.remedy
    if known.settled:
        return ADVICE, f"none needed: {known.settled} is set"
    if known.restarts:
        restarts = loaded(known.restarts) or hasattr(type(owner), known.restarts)
        return ADVICE if restarts and (idle or not known.idle) else ACTION, known.remedy
    return known.severity, known.remedy


def _target(thread: threading.Thread | None) -> Any:
    """Return the function that a thread was started with; None where it cannot be known."""
    if isinstance(thread, threading.Timer) and type(thread).run is threading.Timer.run:
        target: Any = thread.function
    elif thread is None or type(thread).run is threading.Thread.run:
        target = getattr(thread, "_target", None)
    else:
        target = type(thread).run  # a subclass does the work itself
    while isinstance(target, partial):
        target = target.func
    return target


def module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "<unknown>"))


def _is_in(module: str, packages: str) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages.split())


def find_locks(scene: Scene) -> Iterator[Hazard]:
    """Yield the locks that other threads hold."""
    load()
    locks = chain(*instances({LockType, RLock}).values())
    if sys.version_info < (3, 10) and not PYPY:  # the heap lists no locks, but what refers to them
        locks = chain(gc.get_referents(*gc.get_objects()))
    held = {id(lock): lock for lock in locks if _is_held(lock)}
    threads = {thread.ident: thread for thread in active()}
    holders: dict[int, tuple[str, bool]] = {}
    for ident, frame in (frames_of_others() or {}).items():
        name = getattr(threads.get(ident), "name", "(no name)")
        for one in held_by(frame):
            if one.sure:
                held[id(one.lock)] = one.lock
                known = f"by thread {name!r} at {one.where}"
                holders[id(one.lock)] = (known, ForkEvent.free_locks or one.of_standard_library)
    for one in held_by(sys._getframe()):
        held.pop(id(one.lock), None)
    called = _called(held)
    for number, lock in held.items():
        if number in called or number in holders:
            name = called.get(number, "(of local variables)")
            module = name.rpartition(".")[0]
            standard = module in sys.modules and is_standard(module, sys.modules[module])
            holder, freed = holders.get(number, ("by a thread that is not known", False))
            severity: Severity = FIXED if freed or standard or name in _AFRESH else ACTION
            remedy = None if severity == ACTION else "nothing under forksafe: the child's is free"
            kind = "re-entrant lock" if isinstance(lock, RLock) else "lock"
            yield tell("lock", name, name, kind, name, holder, severity=severity, remedy=remedy)


def _is_held(lock: Any) -> bool:
    # Only its text tells the owner: "<locked _thread.RLock object owner=123 count=1 ...>".
    if type(lock) is RLock:
        return repr(lock).startswith("<locked") and f"owner={get_ident()} " not in repr(lock)
    return type(lock) is LockType and lock.locked()


def _called(locks: dict[int, Any]) -> dict[int, str]:
    """Return, by id, the names of locks: as a module's global, or as an attribute of a class.

    A lock that is held by design has no name: a Thread's own, and a waiter's in a Condition.
    """
    found: dict[int, str] = {}
    for module in list(sys.modules):
        for key, value in list(names(module).items()):
            if id(value) in locks:
                found.setdefault(id(value), f"{module}.{key}")
    holders = gc.get_referrers(*locks.values())
    handler = loaded("logging:Handler") or ()
    for holder in (*holders, *gc.get_referrers(*(one for one in holders if type(one) is dict))):
        kind: Any = holder if isinstance(holder, type) else type(holder)
        if kind.__module__ not in _PASSED_OVER and not issubclass(kind, _OF_A_THREAD):
            values: Any = {}
            with suppress(AttributeError):  # it has slots; this runs no code of the program
                values = object.__getattribute__(holder, "__dict__")
            kind = handler if handler and issubclass(kind, handler) else kind
            parts = {id(value): f".{key}" for key, value in list(values.items())}
            for number in locks.keys() & map(id, (*gc.get_referents(holder), *values.values())):
                name = f"{kind.__module__}:{kind.__qualname__}{parts.get(number, '')}"
                found.setdefault(number, name)
    return found
