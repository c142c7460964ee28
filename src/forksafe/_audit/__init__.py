"""`audit()`: say what a fork here and now would break, before it does.

We look first at what the steps heal, since its threads, sockets and locks are then known to be
handled; then at descriptors, since pools answer for their threads; then at the rest. A part imports
none of the program's modules, takes none of its locks, and runs its code only where it must.
"""

from __future__ import annotations

import sys

from .._fork_event import ForkEvent, UnknownLayout
from .._fork_event._typing import Callable, Iterable
from .._hazard import KINDS, SEVERITIES, AllowList, Hazard, tell
from .._libraries._heap import names
from . import _descriptors, _healed, _runtime, _threads
from ._scene import Scene


def audit(*, locks: bool = False, allow: Iterable[str] = ()) -> list[Hazard]:
    """Say what a fork here and now would break, or would break but for forksafe.

    It only reads, at any time and in any thread. It takes a few milliseconds, some 30 where native
    threads run, a tenth of a second with a million objects. It is true for this moment, for a fork
    by this thread.

    Args:
        locks: Look for locks that are held, too. That takes up to a second.
        allow: Hazards that are accepted, and left out of the answer: patterns ``kind:subject`` or
            ``kind:library``, in the style of file names. ``"socket:*:5432"`` allows connections to
            that port, ``"*:sentry-sdk"`` all of that library, ``"native-thread"`` all of a kind.

    Returns:
        What it found: first what needs action, then what forksafe fixes in the forks that it is
        active for, then advice; of each first the kinds that bite most often.

    Raises:
        ValueError: A pattern names a kind that does not exist.

    Source: fork(2), attributes that a child does not inherit; pthread_atfork(3).
    """
    return look(AllowList(allow), locks)


def look(allowed: AllowList, locks: bool = False, drops: bool = False) -> list[Hazard]:
    """Do what `audit()` does; `drops` says that this fork's child lets go of connections."""
    scene = Scene((*_healed.WANTED, *_descriptors.WANTED), drops or ForkEvent.drop_connections)
    for name, part in (
        ("log handlers", _healed.of_log_handlers), ("event loops", _healed.of_event_loops),
        ("pools", _healed.of_pools), ("process executors", _healed.of_process_executors),
        ("thread executors", _healed.of_thread_executors), ("registry", _healed.of_registry),
        ("descriptors", _descriptors.find), ("threads", _threads.find),
        ("native threads", _runtime.find_native_threads), ("the rest", _runtime.find),
        *([("locks", _threads.find_locks)] if locks else []),
    ):  # fmt: skip
        scene.found += _look(name, part, scene)
    found = [hazard for hazard in scene.found if hazard not in allowed]
    return sorted(found, key=lambda h: (SEVERITIES.index(h.severity), KINDS.index(h.kind)))


def _look(name: str, part: Callable[[Scene], Iterable[Hazard]], scene: Scene) -> list[Hazard]:
    error = Exception()
    for _ in range(5):  # other threads may change what the part walks over
        try:
            return list(part(scene))
        except Exception as exc:
            error = exc.with_traceback(None)  # the frames would keep all that was found
    if isinstance(error, UnknownLayout):
        specs = (names(module).get("__spec__") for module in list(sys.modules))
        half = any(getattr(spec, "_initializing", False) for spec in specs)  # its state is to come
        return [] if half else [tell("unknown layout", name, "", name, detail=(error,))]
    return [tell("unknown", name, "", name, detail=(type(error).__name__, error))]
