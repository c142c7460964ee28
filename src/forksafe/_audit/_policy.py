"""What to do about hazards at a fork: ``on_hazard`` and ``allow``.

The parent looks before the fork and tells after it, so that nothing runs in between, and the child
tells nothing. A warning must not cost the caller the pid of a child that runs already: whether the
program's filters would make an exception of it is found out before the fork.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from _thread import get_ident
from contextlib import suppress

from .._fork_event._typing import Any, Callable, Iterable
from .._hazard import ACTION, Hazard
from ..exceptions import ForkHazardWarning, UnsafeForkError
from . import AllowList, look

# Sets of hazards that were told, numbers aside: a port or a thread's number is no news.
_told: set[frozenset[str]] = set()

# What the hook is to tell after its fork, by thread. Its registration is one of its own: it runs
# after the one that restores the signals, and an exception of it (warnings as errors) is reported
# by the interpreter.
_found: dict[int, tuple[Hazard, ...]] = {}
_registered = False


def before(
    on_hazard: str, allow: Iterable[str], harmless: tuple[str, ...] = (), drops: bool = False
) -> tuple[Hazard, ...]:
    """Look before a fork to which kinds are `harmless`, or refuse it; return what to tell `after`.

    `on_hazard` and `allow` are as `safe_fork()` has them; `drops`: see `look`.
    """
    _check(on_hazard)
    if on_hazard == "ignore":
        return ()
    hazards = tuple(h for h in _actions(AllowList(allow), drops) if h.kind not in harmless)
    refused = hazards and on_hazard == "raise"
    if hazards and not refused and _key(hazards) not in _told:
        text, _, line, module, _ = _warning(hazards)
        refused = would_raise(text, ForkHazardWarning, module, line)
    if refused:
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
    global _registered
    _check(on_hazard)
    allowed = AllowList(allow)
    if on_hazard == "ignore":
        return None
    if not _registered:
        _registered = True
        tell = lambda: _tell(_found.pop(get_ident(), ()))  # noqa: E731 - it has just one line
        os.register_at_fork(after_in_parent=tell, after_in_child=_found.clear)

    def watch() -> None:
        _found.pop(get_ident(), None)
        with suppress(Exception):  # the fork goes on, whatever is wrong with its audit
            _found[get_ident()] = _actions(allowed, False)

    return watch


def _check(on_hazard: str) -> None:
    if on_hazard not in ("ignore", "warn", "raise"):
        raise ValueError(f"on_hazard must be ignore, warn or raise, not {on_hazard!r}")


def _actions(allowed: AllowList, drops: bool) -> tuple[Hazard, ...]:
    return tuple(hazard for hazard in look(allowed, drops=drops) if hazard.severity == ACTION)


def _key(hazards: tuple[Hazard, ...]) -> frozenset[str]:
    return frozenset(re.sub(r"\d+", "#", f"{hazard.kind}:{hazard.subject}") for hazard in hazards)


def _tell(hazards: tuple[Hazard, ...]) -> None:
    if hazards and _key(hazards) not in _told:
        _told.add(_key(hazards))
        text, file, line, module, values = _warning(hazards)
        registry = values.setdefault("__warningregistry__", {})
        warnings.warn_explicit(text, ForkHazardWarning, file, line, module, registry)


def _warning(hazards: tuple[Hazard, ...]) -> Any:
    """Return the text; and file, line, module and globals of who forks: the innermost not ours."""
    frame = sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame = frame.f_back
    things = "1 thing" if len(hazards) == 1 else f"{len(hazards)} things"
    lines = "".join(f"\n  {hazard}\n    {hazard.remedy}" for hazard in hazards)
    text = f"this fork breaks {things} in the child that forksafe cannot mend:{lines}"
    values = frame.f_globals
    module = values.get("__name__", "<unknown>")
    return text, frame.f_code.co_filename, frame.f_lineno, module, values


def would_raise(text: str, category: type[Warning], module: str, line: int) -> bool:
    """Tell whether a warning in that place would be an exception, as ``warnings.warn()`` does."""

    def matches(pattern: Any, name: str) -> bool:
        # The interpreter's own filters have plain strings, which must be equal: check_matched() in
        # CPython's _warnings.c.
        return pattern in (None, name) or (hasattr(pattern, "match") and pattern.match(name))

    # Since 3.14 filters may belong to a context.
    filters: Any = getattr(warnings, "_get_filters", lambda: warnings.filters)()
    for action, message, kind, place, number in filters:
        there = number in (0, line) and matches(place, module)
        if there and issubclass(category, kind) and matches(message, text):
            return bool(action == "error")
    return bool(getattr(warnings, "defaultaction", "default") == "error")
