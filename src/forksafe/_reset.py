"""Running the steps: their notes before a fork, their resets in the child.

Nothing here knows a subsystem, and nothing here decides *whether* to reset: the hook does.
"""

from __future__ import annotations

import sys

from ._step import Idle, UnknownLayout
from ._steps import STEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sized
    from typing import Any

    from ._forking import Forking
    from ._step import Step

__all__ = ["last_reset", "note", "reset", "undo"]

DONE = "done"
NOT_NEEDED = "not needed"
NOT_LOADED = "not loaded"

# What happened in the last reset of this process; formatted only when asked for.
_outcomes: list[tuple[Step, object]] | None = None
_raised: list[BaseException] = []


def note(fork: Forking) -> None:
    """Let every step that may have something to reset look at the parent."""
    notes: list[tuple[Step, Any]] = []
    watched: list[Sized] = [sys.modules]
    fork.notes = notes
    for step in STEPS:
        try:
            if not step.loaded():
                continue
            noted = step.note(fork)
        except Exception:
            # The reset does without, and meets in the child, where it is recorded, what was wrong.
            noted = None
        if type(noted) is Idle:
            watched.extend(noted.watched)
        else:
            notes.append((step, noted))
    fork.watched = watched
    fork.sizes = list(map(len, watched))


def undo(fork: Forking) -> None:
    """Let every step take back, in the parent, what its note changed."""
    for step, noted in fork.notes or ():
        try:
            step.undo(noted)
        except Exception:  # noqa: S110 - inside os.fork(): there is nobody to tell
            pass


def reset(fork: Forking) -> None:
    """Run every step in the child, whatever any of them raises."""
    global _outcomes, _raised
    notes = fork.notes
    if notes is None or list(map(len, fork.watched)) != fork.sizes:
        notes = _all_notes(notes or ())
    outcomes: list[tuple[Step, object]] = []
    for step, noted in notes:
        outcome: object
        try:
            outcome = step.reset(fork, noted)
        except (
            BaseException
        ) as exc:  # inside os.fork(): recorded, and the next step runs
            outcome = exc.with_traceback(None)
        outcomes.append((step, outcome))
    _outcomes = outcomes
    _raised = fork.raised


def _all_notes(notes: Iterable[tuple[Step, Any]]) -> list[tuple[Step, Any]]:
    """Return the notes with every step that was idle, or was not loaded, taken in."""
    noted = dict(notes)
    return [(step, noted.get(step)) for step in STEPS if step.loaded()]


def last_reset() -> dict[str, str] | None:
    """Tell what the reset did in this process.

    Returns:
        None where no reset ran in this process. Else, for each step in the order they ran, by
        name: ``"done"``, ``"not needed"``, ``"not loaded"`` (no module with such state was
        imported), ``"unknown layout: ..."`` (the state does not look as on any Python that this
        version of forksafe knows, and was left alone) or ``"failed: ..."``. Under the key
        ``"callbacks"``, if any callback registered with
        ``multiprocessing.util.register_after_fork`` raised: what they raised.
    """
    if _outcomes is None:
        return None
    found = {step.name: _describe(outcome) for step, outcome in _outcomes}
    told = {}
    for step in STEPS:
        told[step.name] = found.get(
            step.name, NOT_NEEDED if step.loaded() else NOT_LOADED
        )
    if _raised:
        told["callbacks"] = "raised: " + "; ".join(repr(exc) for exc in _raised)
    return told


def _describe(outcome: object) -> str:
    if isinstance(outcome, UnknownLayout):
        return f"unknown layout: {outcome}"
    if isinstance(outcome, BaseException):
        return f"failed: {outcome!r}"
    return DONE if outcome else NOT_NEEDED
