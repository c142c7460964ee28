"""What to do about hazards at a fork: ``on_hazard`` and ``allow``.

The parent looks before the fork and tells after it, so that nothing runs in between, and the child
tells nothing. A warning must not cost the caller the pid of a child that runs already: we find out
before the fork whether the program's filters would turn the warning into an exception.
"""

from __future__ import annotations

import re
import sys
import warnings
from contextlib import suppress
from types import FrameType

from .._fork_event._typing import Any, Callable, Iterable
from .._hazard import ACTION, AllowList, Hazard
from ..exceptions import ForkHazardWarning, UnsafeForkError
from . import look
from ._threads import module_of

Hazards = tuple[Hazard, ...]
# Sets of hazards that were told, without digits: another port or thread number is no news.
_told: set[frozenset[str]] = set()


def before(
    on_hazard: str, allow: Iterable[str], harmless: tuple[str, ...] = (), drops: bool = False
) -> Hazards:
    """Look before a fork, but not for `harmless` kinds; refuse it, or return what `after` tells."""
    _check(on_hazard)
    hazards = tuple(h for h in _actions(AllowList(allow), drops) if h.kind not in harmless)
    is_news = hazards and _key(hazards) not in _told
    if (hazards and on_hazard == "raise") or (is_news and would_raise(*_warning(hazards))):
        raise UnsafeForkError(hazards)
    return hazards


def after(hazards: Hazards) -> None:
    """Tell, in the parent and after the fork, what `before` found. Never raises."""
    try:
        _warn(hazards)
    except Exception as exc:  # a showwarning() of the program's own: the pid matters more
        sys.excepthook(type(exc), exc, exc.__traceback__)


def _warn(hazards: Hazards) -> None:
    if hazards and _key(hazards) not in _told:
        _told.add(_key(hazards))
        text, category, frame = _warning(hazards)
        place = (frame.f_code.co_filename, frame.f_lineno, module_of(frame))
        registry = frame.f_globals.setdefault("__warningregistry__", {})
        warnings.warn_explicit(text, category, *place, registry)


def watcher(
    on_hazard: str, allow: Iterable[str], tell: Any = _warn, wanted: Any = lambda: True
) -> Any:
    """Return what the hook is to call before each fork; None for nothing.

    The watcher looks where ``wanted()`` is true of a fork, and has ``tell(hazards)`` called in the
    parent after it. ``"raise"`` is ``"warn"`` here: CPython drops what an at-fork hook raises.
    """
    _check(on_hazard)
    allowed = AllowList(allow)
    if on_hazard == "ignore":
        return None

    def watch() -> Callable[[], object] | None:
        with suppress(Exception):  # the fork goes on, whatever is wrong with the audit
            if wanted():
                hazards = _actions(allowed, False)
                return lambda: tell(hazards)
        return None

    return watch


def _check(on_hazard: str) -> None:
    if on_hazard not in ("ignore", "warn", "raise"):
        raise ValueError(f"on_hazard must be ignore, warn or raise, not {on_hazard!r}")


def _actions(allowed: AllowList, drops: bool) -> Hazards:
    return tuple(hazard for hazard in look(allowed, drops=drops) if hazard.severity == ACTION)


def _key(hazards: Hazards) -> frozenset[str]:
    return frozenset(re.sub(r"\d+", "#", f"{hazard.kind}:{hazard.subject}") for hazard in hazards)


def _warning(hazards: Hazards) -> tuple[str, type[Warning], FrameType]:
    """Return a warning's text, its category, and the frame that forks: the innermost not ours."""
    frame = sys._getframe(1)
    while frame.f_back and module_of(frame).partition(".")[0] == "forksafe":
        frame = frame.f_back
    text = str(UnsafeForkError(hazards)).replace("not forked", "forked all the same", 1)
    return text, ForkHazardWarning, frame


def would_raise(text: str, category: type[Warning], frame: FrameType) -> bool:
    """Tell whether a warning in that place would be an exception, as ``warnings.warn()`` does."""

    def matches(pattern: Any, name: str) -> bool:
        # The interpreter's own filters have plain strings: check_matched() in CPython's _warnings.c
        return pattern in (None, name) or (hasattr(pattern, "match") and pattern.match(name))

    filters: Any = getattr(warnings, "_get_filters", lambda: warnings.filters)()
    for action, message, kind, place, number in filters:
        there = number in (0, frame.f_lineno) and matches(place, module_of(frame))
        if there and issubclass(category, kind) and matches(message, text):
            return bool(action == "error")
    return bool(getattr(warnings, "defaultaction", "default") == "error")
