"""Who is forking? Read off the call stack, before the fork, since no state tells.

The child of ``Process.start()`` runs the after-fork registry itself, where each callback must run
but once. We leave a child alone that is about to exec.

A function counts by its code object, never by its name. A signal handler may interrupt
``Process.start()``, and fork. So from the fork outwards every frame must belong to a package that
forks for others (`_FORKERS`), or to a function that the program has put in place of ``os.fork``.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType, ModuleType

from ._typing import Any

# ``multiprocess`` (pathos) has registries of its own; ``billiard`` (Celery) has multiprocessing's.
NAMES = ("multiprocessing", "multiprocess", "billiard")


def submodules(submodule: str) -> tuple[str, ...]:
    """Return the full names of `submodule` in every family."""
    return tuple(f"{name}.{submodule}" for name in NAMES)


def paths(submodule: str, *attributes: str) -> tuple[str, ...]:
    """Return what `Step.looks` has for these attributes of `submodule` in every family."""
    return tuple(f"{name}:{each}" for each in attributes for name in submodules(submodule))


def loaded(names: tuple[str, ...]) -> list[ModuleType]:
    """Return the modules among `names` that are loaded, in order."""
    return [module for module in map(sys.modules.get, names) if module is not None]


class Launch:
    """The fork inside ``Process.start()``."""

    def __init__(self, family: str, registry: object, standard: bool) -> None:
        self.family = family  # the name of the package whose Process it is
        self.registry = registry  # the after-fork registry that the child runs itself
        self.standard = standard  # whether it surely does: its class overrides nothing on the way


EXEC: Any = object()  # a child that is about to exec

_EXECUTES = (
    ("subprocess", "Popen._execute_child"),  # with preexec_fn
    ("os", "_spawnvef"),
    ("pty", "spawn"),
    ("asyncio.subprocess", "create_subprocess_exec"),  # under uvloop, whose Cython has no frames
    ("asyncio.subprocess", "create_subprocess_shell"),
    ("gevent.subprocess", "Popen._execute_child"),
    ("eventlet.green.subprocess", "Popen._execute_child"),
    ("ptyprocess.ptyprocess", "PtyProcess.spawn"),
    ("twisted.internet.process", "_BaseProcess._fork"),
    ("billiard.compat", "spawnv_passfds"),
)
_BY_NAME: dict[str, list[tuple[str, str]]] = {"_launch": []}
for _module, _path in _EXECUTES:
    _BY_NAME.setdefault(_path.rpartition(".")[2], []).append((_module, _path))

# Packages whose functions fork on behalf of their callers.
_FORKERS = {name.partition(".")[0] for name in (*NAMES, __name__, *dict(_EXECUTES))}

_BUILTIN = type(os.getpid)
_COROUTINE = 0x80  # inspect.CO_COROUTINE
_DEPTH = 16  # frames: wrappers of wrappers of os.fork are no deeper


def who_forks(frame: FrameType | None) -> Launch | None:
    """Return a `Launch` or `EXEC`; None for any other fork.

    `frame` runs ``os.fork()``. None: C code does, in a thread without Python.
    """
    if frame is not None and "uvloop" in sys.modules:
        # Its subprocess_exec(), awaited: a coroutine that calls os.fork() itself stands at a call.
        code = frame.f_code
        opmap: Any = getattr(sys.modules.get("opcode"), "opmap", {})  # loaded by asyncio
        awaits = opmap.get("SEND", opmap.get("YIELD_FROM"))
        if code.co_flags & _COROUTINE and code.co_code[frame.f_lasti] == awaits:
            return EXEC  # type: ignore[no-any-return]
    wrappers = [code_of(f) for f in (os.fork, os.forkpty) if type(f) is not _BUILTIN]
    forking = True  # every frame so far forks on behalf of its caller
    for _ in range(_DEPTH):
        if frame is None:
            break
        code = frame.f_code
        paths = _BY_NAME.get(code.co_name)
        if paths is not None and forking:
            if any(code is find(module, path) for module, path in paths):
                return EXEC  # type: ignore[no-any-return]
            for module in loaded(NAMES):
                launch = _launch(frame, module.__name__)
                if launch is not None:
                    return launch
        name = frame.f_globals.get("__name__")
        if code in wrappers:
            forking = True
        elif type(name) is not str or name.partition(".")[0] not in _FORKERS:
            if not wrappers:
                break
            forking = False
        frame = frame.f_back
    return None


def code_of(function: Any) -> CodeType | None:
    """Return the code of a function in Python, through the usual wrappings; None for one in C."""
    for _ in range(_DEPTH):
        code = getattr(function, "__code__", None)
        if code is not None:
            return code  # type: ignore[no-any-return] # what functions have by that name
        inner = (getattr(function, name, None) for name in ("__func__", "func", "__wrapped__"))
        function = next(filter(None, inner), vars(type(function)).get("__call__"))
    return None


def find(module: str, path: str) -> CodeType | None:
    """Return the code of a function; None where there is none, or its module is not loaded."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return None if found is None else code_of(found)


def _launch(frame: FrameType, family: str) -> Launch | None:
    if frame.f_code is not find(f"{family}.popen_fork", "Popen._launch"):
        return None
    process: ModuleType | None = sys.modules.get(f"{family}.process")
    util = sys.modules.get(f"{family}.util") or sys.modules.get("multiprocessing.util")
    launched = frame.f_locals.get("process_obj")
    if launched is None or launched is getattr(process, "_current_process", None):
        return None  # the latter: this *is* the started Process, whose target is os.fork
    base = getattr(process, "BaseProcess", None)
    standard = all(
        getattr(type(launched), method, None) is getattr(base, method, None)
        and method not in vars(launched)
        for method in ("_bootstrap", "_after_fork")
    )
    return Launch(family, getattr(util, "_afterfork_registry", None), standard)
