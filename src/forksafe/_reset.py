"""Running the steps: their notes before a fork, their resets in the child.

Nothing here knows a subsystem, and nothing here decides *whether* to reset: the hook does.
"""

from __future__ import annotations

from ._step import UnknownLayout
from ._steps import STEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    """Let every step that has something to reset look at the parent."""
    notes: list[tuple[Step, Any]] = []
    fork.notes = notes
    for step in STEPS:
        try:
            if step.loaded():
                notes.append((step, step.note(fork)))
        except Exception:
            # The reset does without, and meets in the child, where it is recorded, what was wrong.
            notes.append((step, None))


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
    if notes is None:
        notes = [(step, None) for step in STEPS if step.loaded()]
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
    told = {step.name: found.get(step.name, NOT_LOADED) for step in STEPS}
    if _raised:
        told["callbacks"] = "raised: " + "; ".join(repr(exc) for exc in _raised)
    return told


def _describe(outcome: object) -> str:
    if isinstance(outcome, UnknownLayout):
        return f"unknown layout: {outcome}"
    if isinstance(outcome, BaseException):
        return f"failed: {outcome!r}"
    return DONE if outcome else NOT_NEEDED
