"""`audit()`: say what a fork here and now would break, before it does.

One file for each kind of thing that only the audit knows; what the reset handles is told by the
steps of the reset themselves (`Step.describe`), so that nothing is claimed that is not done.

The order in which it is looked:

1. the steps, since threads, sockets and locks of what they handle are then known to be handled;
2. databases, since their pools say which sockets their library lets go of by itself;
3. the rest, in the order in which it bites.

The rules for a part: it reads only; it imports nothing, takes no lock of the program, and runs none
of its code where that can be helped. Whatever goes wrong in one part becomes a hazard of the kind
``unknown``: an audit that did not see something says so, and does not raise.
"""

from __future__ import annotations

from functools import partial

from .._fork_event._step import UnknownLayout
from .._hazard import ACTION, ADVICE, KINDS, SEVERITIES, Hazard
from . import (
    _databases,
    _exit_handlers,
    _healed,
    _interpreters,
    _loaded,
    _locks,
    _memory,
    _modules,
    _native_threads,
    _open_files,
    _sockets,
    _temp_files,
    _threads,
)
from ._allow import AllowList as AllowList
from ._heap import Heap
from ._scene import Scene

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PARTS = (
    _databases,
    _interpreters,
    _threads,
    _native_threads,
    _sockets,
    _temp_files,
    _open_files,
    _exit_handlers,
    _modules,
    _memory,
)
_WANTED = frozenset(path for source in (_healed, *_PARTS) for path in source.WANTED)

_TRIES = 5


def audit(*, locks: bool = False, allow: Iterable[str] = ()) -> list[Hazard]:
    """Say what a fork here and now would break, or would break but for forksafe.

    It only reads: it starts nothing, imports nothing and changes nothing. It may be called at any
    time and in any thread, takes a few milliseconds, or a tenth of a second with a million objects,
    and never raises on account of what it finds. It is true for this moment, for a fork by this
    thread.

    Args:
        locks: Look for locks that are held, too. That takes up to a second.
        allow: Hazards that are accepted, and left out of the answer: patterns ``kind:subject``,
            in the style of file names. ``"thread:MyMetrics*"`` allows threads of such names,
            ``"socket:*:5432"`` connections to that port, ``"native-thread"`` all of a kind.

    Returns:
        What it found: first what needs action, then what forksafe fixes in the forks that it is
        active for, then advice; of each first the kinds that bite most often.

    Raises:
        ValueError: A pattern names a kind that does not exist.

    Source: fork(2), attributes that a child does not inherit; pthread_atfork(3).
    """
    return look(AllowList(allow), locks)


def look(allowed: AllowList, locks: bool = False) -> list[Hazard]:
    """Return what a fork here and now would meet, what needs action first.

    Args:
        allowed: What is not to be told.
        locks: Whether to look for locks that are held, which may take a second.
    """
    try:
        heap = Heap(_WANTED)
    except Exception as exc:  # never seen; a hole in the answer all the same
        heap = Heap(())
        unseen = [_unknown("the heap", exc)]
    else:
        unseen = []
    scene = Scene(heap)
    scene.found += unseen
    for name, modules, find in _healed.HEALED:
        scene.found += _part(name, partial(_of_step, modules, find, heap))
    for part in _PARTS:
        name = part.__name__.rpartition("._")[2].replace("_", " ")
        scene.found += _part(name, partial(part.find, scene))
    if locks:
        scene.found += _part("locks", partial(_locks.find, scene))
    found = [hazard for hazard in scene.found if hazard not in allowed]
    return sorted(found, key=lambda h: (SEVERITIES.index(h.severity), KINDS.index(h.kind)))


def _of_step(
    modules: tuple[str, ...], find: Callable[[Heap], Iterator[Hazard]], heap: Heap
) -> Iterable[Hazard]:
    if modules and not any(map(_loaded.is_loaded, modules)):
        return ()
    # Asked first: the import may come to its end meanwhile.
    half = any(map(_loaded.is_half, modules))
    try:
        return list(find(heap))
    except UnknownLayout:
        if half:
            return ()  # the module has no state yet, and the step of the imports tells of it
        raise


def _part(name: str, look: Callable[[], Iterable[Hazard]]) -> list[Hazard]:
    """Run one part; other threads may change under it what it walks over, so it may try again."""
    error: Exception | None = None
    for _ in range(_TRIES):
        try:
            return list(look())
        except UnknownLayout as exc:
            return [_unknown_layout(name, exc)]
        except Exception as exc:
            error = exc
    assert error is not None
    return [_unknown(name, error)]


def _unknown(name: str, error: Exception) -> Hazard:
    return Hazard(
        "unknown",
        ADVICE,
        f"{name} could not be looked at",
        subject=name,
        detail=f"The audit failed there with {type(error).__name__}: {error}",
        remedy="please report it",
    )


def _unknown_layout(name: str, error: UnknownLayout) -> Hazard:
    return Hazard(
        "unknown",
        ACTION,
        f"{name}: not as on any Python that forksafe knows, so that it is left alone",
        subject=name,
        detail=str(error),
        remedy="use a version of forksafe that knows this Python",
    )
