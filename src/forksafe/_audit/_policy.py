"""What to do about hazards at a fork: ``on_hazard`` and ``allow``.

The audit runs in the parent before the fork. What it finds is told after the fork, again by the
parent, so that nothing runs between the look and the fork, and nothing is told twice. Imported only
where it is asked for.

A warning must not cost the caller the pid of a child that runs already. So whether the program's
filters would make an exception of it is found out before the fork, and is then an exception there.
"""

from __future__ import annotations

import os
import sys
import warnings
from _thread import get_ident
from re import compile as pattern

from .._fork_event._filters import would_raise
from .._hazard import ACTION
from ..exceptions import ForkHazardWarning, UnsafeForkError
from . import AllowList, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from .._hazard import Hazard

_ON_HAZARD = ("ignore", "warn", "raise")
_NUMBERS = pattern(r"\d+")
_MANY = 1000
_PACKAGE = __name__.partition(".")[0]

# Sets of hazards that were told, numbers aside: a port or a thread's number is no news.
_told: set[frozenset[str]] = set()


def before(
    on_hazard: str, allow: Iterable[str], harmless: tuple[str, ...] = ()
) -> tuple[Hazard, ...]:
    """Look before a fork; return what `after` is to tell.

    Args:
        on_hazard: See `safe_fork()`.
        allow: See `safe_fork()`.
        harmless: Kinds that do no harm to this fork, whatever is allowed.

    Raises:
        UnsafeForkError: With ``"raise"``, or where a warning would be turned into an exception.
        ValueError: `on_hazard` is none of the three.
    """
    _check(on_hazard)
    if on_hazard == "ignore":
        return ()
    hazards = tuple(h for h in _hazards(AllowList(allow)) if h.kind not in harmless)
    if hazards and (on_hazard == "raise" or _would_raise(hazards)):
        raise UnsafeForkError(hazards)
    return hazards


def after(hazards: tuple[Hazard, ...]) -> None:
    """Tell, in the parent and after the fork, what `before` found. Never raises."""
    try:
        _tell(hazards)
    except Exception as exc:  # a showwarning() of the program's own: the pid matters more
        sys.excepthook(type(exc), exc, exc.__traceback__)


def watcher(on_hazard: str, allow: Iterable[str]) -> Callable[[], None] | None:
    """Return what the hook is to call before each fork; None for nothing.

    ``"raise"`` is as ``"warn"`` here: the interpreter drops what an at-fork hook raises.
    """
    _check(on_hazard)
    allowed = AllowList(allow)
    if on_hazard == "ignore":
        return None
    _register()

    def watch() -> None:
        try:
            _found[get_ident()] = _hazards(allowed)
        except Exception:  # the fork goes on, whatever is wrong with its audit
            _found.pop(get_ident(), None)

    return watch


def _check(on_hazard: str) -> None:
    if on_hazard not in _ON_HAZARD:
        raise ValueError(f"on_hazard must be one of {', '.join(_ON_HAZARD)}, not {on_hazard!r}")


def _hazards(allowed: AllowList) -> tuple[Hazard, ...]:
    return tuple(hazard for hazard in look(allowed) if hazard.severity == ACTION)


# The hook's part. Its registration is one of its own: it runs after the one that restores the
# signals, and an exception of it (warnings as errors) is reported by the interpreter.
_registered = False
_found: dict[int, tuple[Hazard, ...]] = {}


def _register() -> None:
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_parent=_after_in_parent, after_in_child=_found.clear)


def _after_in_parent() -> None:
    hazards = _found.pop(get_ident(), None)
    if hazards:
        _tell(hazards)


def _key(hazards: tuple[Hazard, ...]) -> frozenset[str]:
    return frozenset(_NUMBERS.sub("#", f"{hazard.kind}:{hazard.subject}") for hazard in hazards)


def _tell(hazards: tuple[Hazard, ...]) -> None:
    key = _key(hazards)
    if not hazards or key in _told:
        return
    if len(_told) >= _MANY:
        _told.clear()
    _told.add(key)
    frame = _caller()
    warnings.warn_explicit(
        _text(hazards),
        ForkHazardWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__", "<unknown>"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _text(hazards: tuple[Hazard, ...]) -> str:
    things = "1 thing" if len(hazards) == 1 else f"{len(hazards)} things"
    lines = "".join(f"\n  {hazard}\n    {hazard.remedy}" for hazard in hazards)
    return f"this fork breaks {things} in the child that forksafe cannot mend:{lines}"


def _caller() -> FrameType:
    """Return the frame that forks: the innermost that is none of forksafe's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if name != _PACKAGE and not name.startswith(f"{_PACKAGE}."):
            break
        frame = frame.f_back
    return frame


def _would_raise(hazards: tuple[Hazard, ...]) -> bool:
    """Tell whether the warning, as things stand, would be an exception: as warnings.warn() does."""
    if _key(hazards) in _told:
        return False
    frame = _caller()
    module = frame.f_globals.get("__name__", "<unknown>")
    return would_raise(_text(hazards), ForkHazardWarning, module, frame.f_lineno)
