"""Who is forking? Read off the call stack, before the fork.

Two callers do part of the reset's work themselves, and neither says so in any state that older
Pythons keep, so the frames are the only witness:

- ``Process.start()``, of ``multiprocessing``, ``multiprocess`` and ``billiard``: its child runs
  the after-fork registry right after the fork. Ours must leave that one registry to it, or every
  callback would run twice.
- ``subprocess.Popen(preexec_fn=...)``: its child is about to exec and is left alone.

Only identity of code objects counts, never a name alone.
"""

from __future__ import annotations

import sys

from . import _families

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, ModuleType


class Origin:
    """Somebody who forks."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<fork by {self.name}>"


class Launch(Origin):
    """The fork inside ``Process.start()``.

    Attributes:
        family: The name of the package whose ``Process`` it is.
        registry: The after-fork registry that this ``Process`` runs itself, in the child.
        standard: Whether the child is sure to get there: the class overrides nothing on the way.
    """

    __slots__ = ("family", "registry", "standard")

    def __init__(self, family: str, registry: object, standard: bool) -> None:
        super().__init__(f"{family}.Process")
        self.family = family
        self.registry = registry
        self.standard = standard


PLAIN = Origin("os.fork")
EXEC = Origin("a child about to exec")


def origin(frame: FrameType | None) -> Origin:
    """Tell who forks, from the frame that called into the fork.

    Args:
        frame: The frame that runs the fork: of the caller of ``os.fork()`` itself, not of a hook.
    """
    # Names first: comparing code objects is only worth it for a handful of frames.
    if frame is None:
        return PLAIN
    if frame.f_code.co_name == "_execute_child" and _executes(frame, "subprocess"):
        return EXEC
    while frame is not None:
        name = frame.f_code.co_name
        if name == "_launch":
            for module in _families.loaded(_families.NAMES):
                launch = _launches(frame, module.__name__)
                if launch is not None:
                    return launch
        elif name == "_bootstrap":
            for module in _families.loaded(_PROCESS_MODULES):
                base = getattr(module, "BaseProcess", None)
                if _is_code_of(frame, base, "_bootstrap"):
                    return PLAIN  # a running Process: the program itself forks
        elif name == "_execute_child" and _executes(frame, "gevent.subprocess"):
            return EXEC  # gevent forks and execs in Python
        frame = frame.f_back
    return PLAIN


_PROCESS_MODULES = _families.submodules("process")


def _is_code_of(frame: FrameType, cls: object, method: str) -> bool:
    function = getattr(cls, method, None)
    return function is not None and getattr(function, "__code__", None) is frame.f_code


def _executes(frame: FrameType, module: str) -> bool:
    popen = getattr(sys.modules.get(module), "Popen", None)
    return _is_code_of(frame, popen, "_execute_child")


def _launches(frame: FrameType, family: str) -> Launch | None:
    popen_fork: ModuleType | None = sys.modules.get(f"{family}.popen_fork")
    if not _is_code_of(frame, getattr(popen_fork, "Popen", None), "_launch"):
        return None
    process = sys.modules.get(f"{family}.process")
    registry = getattr(sys.modules.get(f"{family}.util"), "_afterfork_registry", None)
    launched = frame.f_locals.get("process_obj")
    if launched is None or registry is None:
        return None
    if launched is getattr(process, "_current_process", None):
        return None  # this *is* the started Process, past its bootstrap: an atexit handler forks
    base = getattr(process, "BaseProcess", None)
    cls = type(launched)
    standard = all(
        getattr(cls, method, None) is getattr(base, method, None)
        for method in ("_bootstrap", "_after_fork")
    )
    return Launch(family, registry, standard)
