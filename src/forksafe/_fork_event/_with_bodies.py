"""Which locks a thread holds, read off its stack: a proof, not a guess.

A plain lock does not know who has taken it. But a thread whose instruction stands inside the body
of ``with LOCK`` holds LOCK (see `_lock_spans`), and in the child nobody will ever release it. We
look LOCK up again in the frame, without running code of the program. One thing is not proven: some
other function may have put another lock there, or may have released this one. A thread at the entry
or the exit of a body *may* have the lock: mostly it waits for the GIL, and the next look tells.

We leave alone locks that are taken by a call (``with self.lock_for(key)``), by ``ExitStack``,
``@contextmanager``, ``async with`` or a wrapper; locks of other types; all on PyPy, or with no GIL.
"""

from __future__ import annotations

import os
import sys
from _thread import LockType, RLock
from threading import Condition, Event, Thread
from types import FrameType, MemberDescriptorType, MethodDescriptorType, WrapperDescriptorType

from ._typing import Any, Mapping

_HOME = os.path.dirname(os.__file__) + os.sep
# gevent and eventlet put classes of their own there.
READS = sys.implementation.name == "cpython" and all(
    type(getattr(lock, "acquire", None)) is MethodDescriptorType for lock in (LockType, RLock)
)
_KEEPS_LOCALS = sys.version_info < (3, 13) and sys.implementation.name == "cpython"
_OPTIMIZED = 1  # inspect.CO_OPTIMIZED: a function, not the body of a class

# Where a thread in Condition.wait() sleeps without the lock: behind the first acquire().
WAIT: Any = getattr(Condition.wait, "__code__", None)
_ASLEEP: set[int] = set()
_EVENT: Any = getattr(Event.wait, "__code__", None)  # whose lock is that of the same Condition
# The outermost function but one of a thread, whose lock every child makes anew.
_OUTERMOST: Any = getattr(getattr(Thread, "_bootstrap_inner", None), "__code__", None)

spans: Any = None  # the module `_lock_spans`
_NONE: Mapping[int, Any] = {}


def load() -> None:
    """Load what the proof needs, which takes longer than all the rest; not inside of a fork."""
    global spans
    if not READS or spans is not None:
        return
    from . import _lock_spans

    _ASLEEP.update(_lock_spans.calls(WAIT, ("waiter", "acquire"))[1:])
    spans = _lock_spans


class Held:
    """A lock that a thread holds, or may hold: a ``_thread.lock`` or ``_thread.RLock``.

    `sure`: proven; `foreign`: not held by the thread that looks; `where`: the holder's line now.
    """

    __slots__ = ("foreign", "lock", "of_standard_library", "sure", "where")

    def __init__(self, lock: Any, sure: bool, frame: FrameType) -> None:
        self.lock = lock
        if type(lock) is RLock:
            self.sure = sure
            self.foreign = not lock._is_owned()  # type: ignore[attr-defined] # not in typeshed
        else:
            self.sure = sure and lock.locked()
            self.foreign = self.sure or not lock.locked()
        path = frame.f_code.co_filename
        self.where = f"{path}:{frame.f_lineno}"
        self.of_standard_library = path.startswith(_HOME) and "-packages" not in path


def walk(
    frame: FrameType | None, held: list[Held], functions: Mapping[int, Any] = _NONE
) -> list[tuple[Any, ...]]:
    """Walk a thread's stack, the innermost frame first; only while the thread does not run.

    `held` takes the locks that the thread holds or may hold; one can come twice. `functions` has,
    by the id of a code object, a name, and the variables to return with it for each frame of it.
    """
    inside = []
    known = _NONE if spans is None else spans.found
    wait: FrameType | None = None  # the frame of Condition.wait() in which the thread sleeps
    releasing: list[tuple[FrameType, tuple[str, ...]]] = []
    while frame is not None:
        code = frame.f_code
        if code is _OUTERMOST:
            break
        key = id(code)
        if key in functions:
            name, variables, _ = functions[key]
            inside.append((name, *locals_of(frame, *variables)))
        position = frame.f_lasti
        found = known[key] if key in known else () if spans is None else spans.analyse(code)
        if position in _ASLEEP and code is WAIT:
            wait, found = frame, ()
        elif code is _EVENT and wait is not None:
            found = ()
        for start, end, path, sure in found:
            if not start <= position < end:
                continue
            if sure is None:
                releasing.append((frame, path))
                continue
            lock = _lock_of(_resolve(frame, path))
            sleeps_in = None if wait is None else _lock_of(*locals_of(wait, "self"))
            if lock is None or lock is sleeps_in:
                continue
            for at, released in releasing:  # in functions that the body has called
                sure = sure and bool(released) and _lock_of(_resolve(at, released)) is not lock
            # We may have given up the GIL in between, and the variables may have changed.
            held.append(Held(lock, sure and frame.f_lasti == position, frame))
        frame = frame.f_back
    return inside


def held_by(frame: FrameType | None) -> list[Held]:
    held: list[Held] = []
    walk(frame, held)
    return held


def settle(held: list[Held], foreign: dict[int, Any]) -> bool:
    """Add up what several looks have shown, between which this thread took no lock.

    `held` is what others hold at the last look. Put into `foreign`, by id, the locks that are not
    this thread's, and tell whether all of `held` are among them now.
    """
    foreign.update((id(one.lock), one.lock) for one in held if one.foreign)
    for one in held:
        one.foreign = id(one.lock) in foreign
    return all(one.foreign for one in held)


def free(held: Held) -> bool:
    """Free a lock in the child, unless this thread holds it or may hold it; tell if it was held."""
    # A lock is not this thread's if a look saw it free, or held by another; up to 3.13 also if it
    # cannot be taken while locked() is false: who is given a lock sets that flag with the GIL.
    if not held.foreign and (type(held.lock) is RLock or held.lock.locked()):
        return False
    return free_lock(held.lock)


def free_lock(lock: Any) -> bool:
    """Free a re-entrant lock, or one that is known not to be this thread's; tell if it was held."""
    if lock.acquire(False):  # it was free, or a re-entrant lock of this thread
        lock.release()
        return False
    if sys.implementation.name == "pypy" and type(lock) is LockType:
        lock.release()  # code that its JIT has compiled keeps the lock from before a reinit
    else:
        lock._at_fork_reinit()
    return True


def locals_of(frame: FrameType, *names: str) -> list[Any]:
    """Return local variables of a frame, None for those without a value."""
    found = frame.f_locals
    values = [found.get(name) for name in names]
    # Up to 3.12 the frame keeps this dictionary; a trace function may have made changes in it.
    if _KEEPS_LOCALS and frame.f_code.co_flags & _OPTIMIZED and sys.gettrace() is None:
        found.clear()
    return values


def _resolve(frame: FrameType, path: tuple[str, ...]) -> Any:
    """Return the object that `path` leads to, or None."""
    kind, name = path[:2]
    if kind == "name" and frame.f_locals is not frame.f_globals:
        return None  # the body of a class, whose names may be anything
    thing = locals_of(frame, name)[0] if kind == "local" else dict.get(frame.f_globals, name)
    for attribute in path[2:]:
        thing = _attribute(thing, attribute)
    return thing


def _lock_of(thing: Any) -> Any:
    """Return the lock that is taken with `thing`, or None where that is not known."""
    cls: Any = type(thing)
    if issubclass(cls, Condition) and _member(cls, "__enter__") is Condition.__enter__:
        thing = _attribute(thing, "_lock")
    return thing if type(thing) is LockType or type(thing) is RLock else None


_of_type: Any = type.__getattribute__
_mro: Any = type.__dict__["__mro__"].__get__
_names: Any = type.__dict__["__dict__"].__get__


def _member(cls: type, name: str) -> Any:
    """Return what a class or one of its bases has under this name, as it is there, or None."""
    for base in _mro(cls):
        if name in _names(base):
            return _names(base)[name]
    return None


def _attribute(thing: Any, name: str) -> Any:
    """Return an attribute, or None where reading it may run code of the program."""
    cls = type(thing)
    if type(_of_type(cls, "__getattribute__")) is not WrapperDescriptorType:
        return None
    member = _member(cls, name)
    if issubclass(cls, type):
        own = _member(thing, name)
        return own if member is None and not _is_descriptor(own) else None
    # A slot's descriptor is the interpreter's own.
    if type(member) is MemberDescriptorType or not _is_descriptor(member):
        try:
            return object.__getattribute__(thing, name)
        except AttributeError:
            pass
    return None


def _is_descriptor(member: Any) -> bool:
    return member is not None and _member(type(member), "__get__") is not None
