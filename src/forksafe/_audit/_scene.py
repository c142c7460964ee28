"""One audit under way: what its parts share, and how they look without waking anything.

A connection pool is in no list: the garbage collector alone knows where it is. One pass over the
heap finds the instances of every type that some part asks for: about 60 ms for a million objects,
nearly all of it in C, however many types there are. What ``gc.freeze()`` has put aside is not seen,
and the audit says so.

The audit imports nothing. A lazy module imports when an attribute is asked for, so only what stands
in its dictionary counts.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections import deque
from itertools import compress
from types import BuiltinFunctionType, FunctionType, ModuleType

from .._fork_event._step import UnknownLayout
from .._hazard import ACTION, ADVICE, FIXED
from .._libraries._connections import DROPPED
from .._steps import _mp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .._hazard import Hazard, Severity

_LISTS = ("/proc/self/fd", "/dev/fd")  # Linux; macOS and the BSDs
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

# What leads to everything, or to nothing.
_DEAD_ENDS = (ModuleType, type, FunctionType, BuiltinFunctionType, str, bytes, int, float)
_FAR = 1000  # objects: a requests.Session is 150 from the socket of its only connection
_MANY = 100_000  # objects in all


class Scene:
    """What the parts of one audit share.

    Args:
        wanted: ``"module:Class"`` of what they look for; those not loaded are passed over.
        drops: Whether the child lets go of its parent's connections.

    Attributes:
        found: What was told so far, for later parts to see what is handled already.
        mended: The ids of objects that the child's reset mends.
    """

    def __init__(self, wanted: Iterable[str], drops: bool) -> None:
        self.found: list[Hazard] = []
        self.mended: set[int] = set()
        self._types: dict[str, set[type]] = {}
        self._answered: dict[int, Any] | None = None
        every: set[type] = set()
        for path in (*wanted, *DROPPED):
            cls = find(path)
            self._types[path] = _with_subclasses(cls) if isinstance(cls, type) else set()
            every |= self._types[path]
        self._dropped = {t for path in DROPPED for t in self._types[path]} if drops else set()
        self._instances: dict[type, list[Any]] = {}
        if every:
            objects = gc.get_objects()
            # Only types are looked at, so nothing of the program runs, whatever the object is.
            for thing in compress(objects, map(every.__contains__, map(type, objects))):
                self._instances.setdefault(type(thing), []).append(thing)

    def instances(self, *paths: str) -> list[Any]:
        """Return the instances of ``"module:Class"``, subclasses included."""
        types = dict.fromkeys(cls for path in paths for cls in self._types.get(path, ()))
        return [thing for cls in types for thing in self._instances.get(cls, ())]

    def judge(self, severity: Severity, remedy: str, *things: Any) -> tuple[Severity, str]:
        """Return severity and remedy of what hurts, unless somebody takes care of it.

        Args:
            severity: What it is by itself.
            remedy: What to write by itself.
            things: The objects that have it: a connection and its pool, a thread and its owner.
        """
        if severity != ACTION:
            pass
        elif any(id(thing) in self.mended for thing in things):
            return FIXED, "nothing under forksafe: the child connects anew"
        elif any(type(thing) in self._dropped for thing in things):
            return FIXED, "nothing under forksafe: by drop_connections the child lets go of it"
        elif any(id(thing) in self._answers() for thing in things):
            return ADVICE, "none needed: your callback of register_after_fork() answers for it"
        return severity, remedy

    def _answers(self) -> dict[int, Any]:
        """Return, by id, what has a callback in the after-fork registry, and what that leads to."""
        if self._answered is None:
            self._answered = {}
            try:
                entries = [entry for one in _mp.registries() for entry in list(one.entries.items())]
            except UnknownLayout:
                entries = []  # the registry itself tells
            for (_, _, callback), reference in entries:
                if not _mp._is_own(callback) and len(self._answered) < _MANY:
                    self._answered.update(_reach(reference()))
        return self._answered


def _reach(root: Any) -> dict[int, Any]:
    found: dict[int, Any] = {}  # which keeps them alive, so that no id is used again meanwhile
    todo = deque((root,))
    logger = find("logging:Logger")
    while todo and len(found) < _FAR:
        thing = todo.popleft()
        if thing is not None and id(thing) not in found:
            found[id(thing)] = thing
            if not issubclass(type(thing), _DEAD_ENDS) and type(thing) is not logger:
                todo.extend(gc.get_referents(thing))
    return found


def _with_subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(_with_subclasses, type.__subclasses__(cls)))


def is_loaded(module: str) -> bool:
    """Tell whether `module` is imported, or being imported."""
    return sys.modules.get(module) is not None


def is_half(module: str) -> bool:
    """Tell whether `module` is being imported, and has but half of its names."""
    return bool(getattr(names(module).get("__spec__"), "_initializing", False))


def names(module: str) -> Mapping[str, Any]:
    """Return the dictionary of `module`; an empty one where it is not loaded."""
    loaded = sys.modules.get(module)
    try:
        found = object.__getattribute__(loaded, "__dict__")
    except AttributeError:
        return {}  # None, or something odd that a program put there
    return found if isinstance(found, dict) else {}


def find(path: str) -> Any:
    """Return what ``"module:name"`` stands for; None where it is not loaded."""
    module, _, name = path.partition(":")
    return names(module).get(name)


def path_of(thing: Any) -> str:
    """Return ``"module:qualname"`` of the type of `thing`."""
    return f"{type(thing).__module__}:{type(thing).__qualname__}"


def descriptors() -> list[int] | None:
    """Return the numbers of all open descriptors; None where there is no such list.

    0, 1 and 2 are left out: under systemd and the like they are sockets, and meant to be shared.

    Raises:
        OSError: There is a list, and no descriptor left to read it by.
    """
    for directory in _LISTS:
        try:
            listed = os.listdir(directory)
        except OSError as exc:
            if exc.errno in NO_DESCRIPTOR:
                raise
            continue
        found = sorted(int(name) for name in listed if name.isdigit())
        # Without fdescfs(5), FreeBSD's /dev/fd shows these three whatever is open.
        if directory == "/dev/fd" and found[-1:] <= [2]:
            continue
        return [fd for fd in found if fd > 2]
    return None
