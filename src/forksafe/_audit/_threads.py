"""Live Python threads: a fork keeps the one that calls it, and none of the others.

No reset can bring a thread back: what it was about to do, and the locks it holds, are known to it
alone. A thread counts when the interpreter has a frame for it; greenlets, which gevent and
eventlet put into ``threading``'s list, have none, and a fork does keep them.
"""

from __future__ import annotations

import sys
import threading
from functools import partial

from .._hazard import ACTION, ADVICE, FIXED, Hazard
from .._libraries._thread_owners import UNKNOWN, Owner, owner
from ._allow import AllowList

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any, Literal

    from ._scene import Scene

WANTED: tuple[str, ...] = ()

# The machinery every thread stands in; what it works for is told by the frames around.
_MACHINERY = ("threading", "queue", "concurrent.futures", "selectors", "_pyrepl")
_MAIN = Owner(
    "",
    remedy=(
        "fork in the main thread, before others start; or mind that in the child nothing of it "
        "goes on, and the thread that forks is the main one"
    ),
)
_DEPTH = 200  # frames: enough to find the outermost of any sane thread


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    # Asked both before and after, so that one that starts or ends meanwhile has its name.
    before = _named()
    frames = sys._current_frames()
    threads = {**_named(), **before}
    own = sys._getframe()
    try:
        for ident, frame in frames.items():
            thread = threads.get(ident)
            # Not by get_ident(): gevent puts that of a greenlet in its place.
            if frame is not own and not (thread is None and _is_bootstrap(frame)):
                yield _hazard(scene, thread, frame)
    finally:
        frames.clear()  # their locals are not ours to keep


def _named() -> dict[int, threading.Thread]:
    """Return the threads that ``threading`` knows, those that are just starting among them."""
    # Not threading.enumerate(): its lock may be held by the frame that a signal handler interrupts.
    limbo = list(getattr(threading, "_limbo", {}).values())
    starting = {thread.ident: thread for thread in limbo if thread.ident is not None}
    return {**starting, **getattr(threading, "_active", {})}


def _is_bootstrap(frame: FrameType) -> bool:
    """Tell whether a thread runs but what `threading` itself does before and after its work."""
    stack = _stack(frame)
    outermost = stack[-1].f_code.co_name
    return outermost == "_bootstrap" and all(_module(f) == "threading" for f in stack)


def _hazard(scene: Scene, thread: threading.Thread | None, frame: FrameType) -> Hazard:
    target = _target(thread)
    stack = _stack(frame)
    here = next((f for f in stack if not _is_machinery(_module(f))), stack[0])
    around = [_module(f) for f in stack]
    if target is not None:
        modules = [_text(getattr(target, "__module__", "")), type(thread).__module__]
        name = getattr(target, "__qualname__", None) or type(target).__qualname__
        label = f"{modules[0]}:{name}"
    else:
        outer = next((f for f in reversed(stack) if _module(f) != "threading"), stack[-1])
        modules = [_module(outer)]
        label = f"{modules[0]}:{getattr(outer.f_code, 'co_qualname', outer.f_code.co_name)}"
    name = str(thread.name) if thread is not None else "(no name)"
    # Whose function it was started with is what counts: a library that watches threads (sentry-sdk
    # and others do) has frames in those of everybody.
    known = owner(label, modules if target is not None else around, name)
    told = _told(scene, known)
    if known.answered_by and not told:
        known = UNKNOWN
    if thread is threading.main_thread():
        known = _MAIN
    severity = _severity(known, target, told)
    daemon = "" if thread is None else "daemon " if thread.daemon else "non-daemon "
    whose = f" of {known.library}" if known.library else ""
    if thread is None:
        daemon = "raw "  # _thread.start_new_thread, or C code that called into Python
    becomes = {
        ACTION: "would be gone in the child",
        FIXED: "would be gone in the child, which does without it",
        ADVICE: "would be gone in the child, where its library starts it again",
    }[severity]
    if told and severity == ADVICE:
        becomes = f"would be gone in the child, as the {told[0].kind} tells"
    return Hazard(
        "thread",
        severity,
        f"{daemon}thread {name!r}{whose} {becomes}",
        subject=name,
        detail=(
            f"It stands at {here.f_code.co_filename}:{here.f_lineno} in {here.f_code.co_name}(). "
            "Locks that it holds stay locked in the child for ever; what waits in its queues is "
            "never done there."
        ),
        remedy=known.remedy,
        where=label,
    )


def _told(scene: Scene, known: Owner) -> list[Hazard]:
    """Return what the steps tell of that the thread belongs to."""
    answers = AllowList(known.answered_by)
    return [hazard for hazard in scene.found if hazard in answers]


def _severity(
    known: Owner, target: Any, told: list[Hazard]
) -> Literal["action", "fixed", "advice"]:
    if told:
        # What needs action is told once, by the step.
        return FIXED if all(hazard.severity == FIXED for hazard in told) else ADVICE
    if known is not UNKNOWN and known.restarts:
        instance = getattr(target, "__self__", None)
        return ADVICE if hasattr(type(instance), known.restarts) else ACTION
    return known.severity


def _target(thread: threading.Thread | None) -> Any:
    """Return the function that a thread was started with; None where it cannot be known."""
    if thread is None:
        return None
    cls = type(thread)
    if cls.run is not threading.Thread.run:
        # A subclass does the work itself; of threading's own only Timer has a function.
        function = (
            getattr(thread, "function", None) if isinstance(thread, threading.Timer) else None
        )
        return _unwrap(function) if function is not None else cls.run
    return _unwrap(getattr(thread, "_target", None))


def _unwrap(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    return function


def _stack(frame: FrameType | None) -> list[FrameType]:
    stack: list[FrameType] = []
    while frame is not None and len(stack) < _DEPTH:
        stack.append(frame)
        try:
            frame = frame.f_back
        except SystemError:
            break  # PyPy's compiler keeps the frames of another thread in a form of its own
    return stack


def _module(frame: FrameType) -> str:
    return _text(frame.f_globals.get("__name__", ""))


def _is_machinery(module: str) -> bool:
    return any(module == known or module.startswith(known + ".") for known in _MACHINERY)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
