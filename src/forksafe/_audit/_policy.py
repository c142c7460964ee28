"""What to do about hazards at a fork: ``on_hazard`` and ``allow``.

The audit runs in the parent before the fork. What it finds is told after the fork, again by the
parent, so that nothing runs between the look and the fork, and nothing is told twice. Imported only
where it is asked for.

A warning must not cost the caller the pid of a child that runs already. So whether the program's
filters would make an exception of it is found out before the fork, and is then an exception there.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from _thread import get_ident

from .._fork_event._filters import would_raise
from .._hazard import ACTION
from ..exceptions import ForkHazardWarning, UnsafeForkError
from . import AllowList, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from .._hazard import Hazard

    _Hazards = tuple[Hazard, ...]

_ON_HAZARD = ("ignore", "warn", "raise")
_MANY = 1000

# Sets of hazards that were told, numbers aside: a port or a thread's number is no news.
_told: set[frozenset[str]] = set()

# What the hook is to tell after its fork, by thread. Its registration is one of its own: it runs
# after the one that restores the signals, and an exception of it (warnings as errors) is reported
# by the interpreter.
_found: dict[int, _Hazards] = {}
_registered = False


def before(
    on_hazard: str,
    allow: Iterable[str],
    harmless: tuple[str, ...] = (),
    drops: bool = False,
) -> _Hazards:
    """Look before a fork; return what `after` is to tell.

    Args:
        on_hazard: See `safe_fork()`, and so for `allow`.
        allow: See there.
        harmless: Kinds that do no harm to this fork.
        drops: Whether this child lets go of its parent's connections.

    Raises:
        UnsafeForkError: With ``"raise"``, or where a warning would be turned into an exception.
        ValueError: `on_hazard` is none of the three.
    """
    _check(on_hazard)
    if on_hazard == "ignore":
        return ()
    hazards = tuple(h for h in _hazards(AllowList(allow), drops) if h.kind not in harmless)
    if hazards and (on_hazard == "raise" or _would_raise(hazards)):
        raise UnsafeForkError(hazards)
    return hazards


def after(hazards: _Hazards) -> None:
    """Tell, in the parent and after the fork, what `before` found. Never raises."""
    try:
        _tell(hazards)
    except Exception as exc:  # a showwarning() of the program's own: the pid matters more
        sys.excepthook(type(exc), exc, exc.__traceback__)


def watcher(on_hazard: str, allow: Iterable[str]) -> Callable[[], None] | None:
    """Return what the hook is to call before each fork; None for nothing.

    ``"raise"`` is as ``"warn"`` here: the interpreter drops what an at-fork hook raises.
    """
    global _registered
    _check(on_hazard)
    allowed = AllowList(allow)
    if on_hazard == "ignore":
        return None
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_parent=_after_in_parent, after_in_child=_found.clear)

    def watch() -> None:
        try:
            _found[get_ident()] = _hazards(allowed, False)
        except Exception:  # the fork goes on, whatever is wrong with its audit
            _found.pop(get_ident(), None)

    return watch


def _after_in_parent() -> None:
    _tell(_found.pop(get_ident(), ()))


def _check(on_hazard: str) -> None:
    if on_hazard not in _ON_HAZARD:
        raise ValueError(f"on_hazard must be one of {', '.join(_ON_HAZARD)}, not {on_hazard!r}")


def _hazards(allowed: AllowList, drops: bool) -> _Hazards:
    return tuple(hazard for hazard in look(allowed, drops=drops) if hazard.severity == ACTION)


def _key(hazards: _Hazards) -> frozenset[str]:
    return frozenset(re.sub(r"\d+", "#", f"{hazard.kind}:{hazard.subject}") for hazard in hazards)


def _tell(hazards: _Hazards) -> None:
    key = _key(hazards)
    if not hazards or key in _told:
        return
    if len(_told) >= _MANY:
        _told.clear()
    _told.add(key)
    frame = _caller()
    module = frame.f_globals.get("__name__", "<unknown>")
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    place = (frame.f_code.co_filename, frame.f_lineno, module, registry)
    warnings.warn_explicit(_text(hazards), ForkHazardWarning, *place)


def _text(hazards: _Hazards) -> str:
    things = "1 thing" if len(hazards) == 1 else f"{len(hazards)} things"
    lines = "".join(f"\n  {hazard}\n    {hazard.remedy}" for hazard in hazards)
    return f"this fork breaks {things} in the child that forksafe cannot mend:{lines}"


def _caller() -> FrameType:
    """Return the frame that forks: the innermost that is none of forksafe's."""
    frame = sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame = frame.f_back
    return frame


def _would_raise(hazards: _Hazards) -> bool:
    """Tell whether the warning, as things stand, would be an exception: as warnings.warn() does."""
    frame = _caller()
    place = (frame.f_globals.get("__name__", "<unknown>"), frame.f_lineno)
    told = _key(hazards) in _told
    return not told and would_raise(_text(hazards), ForkHazardWarning, *place)
