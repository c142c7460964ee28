"""One audit under way: what its parts share, and how they look without waking anything.

A connection pool is in no list: the garbage collector alone knows where it is. One pass over the
heap finds the instances of every class that some part asks for, about 20 ms for a million objects.
A lazy module imports when an attribute is asked for, so only what its dictionary has counts.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from contextlib import suppress
from functools import cached_property, partial
from types import BuiltinFunctionType, FunctionType, ModuleType

from .._fork_event import UnknownLayout
from .._fork_event._typing import Any, Iterable
from .._hazard import ACTION, ADVICE, FIXED, Hazard, Severity
from .._libraries._connections import ROWS
from .._libraries._heap import classes, instances, loaded
from .._steps import _mp

_LISTS = ("/proc/self/fd", "/dev/fd")  # Linux; macOS and the BSDs
UNNAMED = "(unnamed)"
_DEAD_ENDS = (ModuleType, type, FunctionType, BuiltinFunctionType, str, bytes, int, float)


class Scene:
    """What the parts of one audit share: all instances of the classes that they look for."""

    def __init__(self, wanted: Iterable[str], drops: bool) -> None:
        self.found: list[Hazard] = []  # for later parts to see what is handled already
        self.mended: set[int] = set()  # the ids of objects that the child's reset mends
        self._types = {path: classes(path) for path in (*wanted, *(row.path for row in ROWS))}
        self._dropped = {t for row in ROWS for t in self._types[row.path]} if drops else set()
        self._instances = instances({t for types in self._types.values() for t in types})

    def instances(self, *paths: str) -> list[Any]:
        """Return the instances of ``"module:Class"``, subclasses included."""
        types = dict.fromkeys(cls for path in paths for cls in self._types[path])
        return [thing for cls in types for thing in self._instances[cls]]

    def judge(self, severity: Severity, remedy: str, *things: Any) -> tuple[Severity, str]:
        """Return this severity and remedy, or others if somebody takes care of one of `things`."""
        if severity == ACTION:
            if any(id(thing) in self.mended for thing in things):
                return FIXED, "nothing under forksafe: the child connects anew"
            if any(type(thing) in self._dropped for thing in things):
                return FIXED, "nothing under forksafe: by drop_connections the child lets go of it"
            if any(id(thing) in self._answered for thing in things):
                return ADVICE, "none needed: your callback of register_after_fork() answers for it"
        return severity, remedy

    @cached_property
    def _answered(self) -> dict[int, Any]:
        """What has a callback of the program in the after-fork registry, and what it refers to."""
        todo: deque[Any] = deque()
        with suppress(UnknownLayout):  # the registry itself tells
            for one in _mp.registries():
                todo.extend(refer() for refer in one.own_and_programs(None)[1].values())
        most = min(1000 * len(todo), 100_000)  # a requests.Session is 150 objects from its socket
        logger = loaded("logging:Logger")
        found: dict[int, Any] = {}  # it keeps them alive, so that no id is used twice
        while todo and len(found) < most:
            thing = todo.popleft()
            if thing is not None and id(thing) not in found:
                found[id(thing)] = thing
                if not issubclass(type(thing), _DEAD_ENDS) and type(thing) is not logger:
                    todo.extend(gc.get_referents(thing))
        return found


def path_of(thing: Any) -> str:
    """Return ``"module:qualname"`` of the type of `thing`."""
    return f"{type(thing).__module__}:{type(thing).__qualname__}"


def name_of(function: Any) -> str:
    """Return ``"module:qualname"`` of a function, or of what is called as one."""
    while isinstance(function, partial):
        function = function.func
    module = getattr(function, "__module__", None) or type(function).__module__
    return f"{module}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def address_of(address: Any) -> str:
    """Return ``host:port``, or a path; in an abstract one "@" stands for the zero byte."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if len(address) == 4 else f"{host}:{port}"  # IPv6 has four
    return os.fsdecode(address).replace("\0", "@", 1) or UNNAMED


def descriptors() -> list[int] | None:
    """Return the numbers of all open descriptors above 2; None where there is no such list."""
    for directory in _LISTS:
        with suppress(OSError):  # no such directory, or no descriptor left to read it
            found = sorted(int(name) for name in os.listdir(directory) if name.isdigit())
            # Without fdescfs(5), FreeBSD's /dev/fd shows just the first three, whatever is open.
            if directory != "/dev/fd" or found[-1:] > [2]:
                return [fd for fd in found if fd > 2]  # systemd's are sockets, meant to be shared
    return None
