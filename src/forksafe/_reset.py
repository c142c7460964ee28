"""Running the steps: their notes before a fork, their resets in the child.

Nothing here knows a subsystem, and nothing here decides *whether* to reset: the hook does.
"""

from __future__ import annotations

import sys

from ._fork_event import _mark as _process
from ._fork_event._step import NOTHING, Idle, Step, UnknownLayout
from ._steps import STEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sized
    from typing import Any

    from ._fork_event import Forking

DONE = "done"
NOT_NEEDED = "not needed"
NOT_LOADED = "not loaded"

# What happened in the last reset of this process; formatted only when asked for.
_outcomes: list[tuple[Step, object]] | None = None
_raised: tuple[BaseException, ...] = ()


class Plan:
    """Which steps have anything to do at a fork, and what shows that others have got something."""

    __slots__ = ("active", "empty", "pending", "watched")

    def __init__(self) -> None:
        # Each step with its note(), None for a step that takes none.
        self.active: list[tuple[Step, Callable[[Forking], Any] | None]] = []
        # What must be loaded before any module of the steps that is not; containers of the idle
        # steps, and as many empty ones.
        self.pending: set[str] = set()
        self.watched: tuple[Sized, ...] = ()
        self.empty: tuple[Sized, ...] = ()

    def watch(self, containers: tuple[Sized, ...]) -> None:
        """Have the plan hold only as long as these are empty."""
        self.watched += containers
        self.empty += tuple(type(container)() for container in containers)

    def holds(self) -> bool:
        """Tell whether no other step is needed, without running any Python code."""
        # Tuples compare their items without holding on to them, and so write to none.
        return self.watched == self.empty and sys.modules.keys().isdisjoint(self.pending)


# The plan of the last fork of each kind, in this process: the next of that kind is mostly alike.
_plans: dict[tuple[str, bool, bool], Plan] = {}


def forget_plans() -> None:
    """In a child that is not reset: what was true of the parent may not be true of it."""
    _plans.clear()


def note(fork: Forking) -> None:
    """Let every step that may have something to reset look at the parent."""
    kind = fork.origin.name, fork.identity is not None, fork.alone
    plan = _plans.get(kind)
    if plan is None or not plan.holds():
        fork.plan = _plans[kind] = _look(fork)
        return
    fork.fresh = False
    notes: list[tuple[Step, Any]] = []
    fork.notes = notes
    noted: Any
    for step, take in plan.active:
        noted = None
        if take is not None:
            try:
                noted = take(fork)
            except Exception:  # noqa: S110 - see _look()
                pass
            if noted is NOTHING:
                if fork.alone:
                    continue
                noted = None
        notes.append((step, noted))
    fork.plan = plan  # last: without it the child takes in every step, if a handler raised in here


def _first(name: str) -> str:
    """Return what is loaded first when a module is: its package, or itself where that is there."""
    package = name.partition(".")[0]
    return name if package in sys.modules else package


def _look(fork: Forking) -> Plan:
    plan = Plan()
    fork.notes = notes = []
    noted: Any
    modules = sys.modules
    for step in STEPS:
        plan.pending.update(_first(name) for name in step.modules if name not in modules)
        if not step.loaded():
            continue
        noted = None
        try:
            noted = step.note(fork)
        except Exception:  # noqa: S110 - nothing is raised inside os.fork()
            # The reset does without, and meets in the child, where it is recorded, what was wrong.
            pass
        if type(noted) is Idle:
            plan.watch(noted.watched)
            continue
        plan.active.append((step, None if type(step).note is Step.note else step.note))
        if noted is NOTHING:
            if fork.alone:
                continue
            noted = None
        notes.append((step, noted))
    return plan


def undo(fork: Forking) -> None:
    """Take back, in the parent, what the notes changed."""
    for take_back in fork.undo:
        try:
            take_back()
        except Exception:  # noqa: S110 - inside os.fork(): there is nobody to tell
            pass


def reset(fork: Forking) -> None:
    """Run the steps in the child, whatever any of them raises."""
    global _outcomes, _raised
    notes = fork.notes
    if notes is None or fork.plan is None or not (fork.alone or fork.plan.holds()):
        notes = _all_notes(notes or ())
    _plans.clear()  # another process, other state
    outcomes: list[tuple[Step, object]] = []
    _process.mark = outcomes  # an object like no other
    outcome: object
    for step, noted in notes:
        try:
            outcome = step.reset(fork, noted)
        except BaseException as exc:  # inside os.fork(): recorded, and the next step runs
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
        told[step.name] = found.get(step.name, NOT_NEEDED if step.loaded() else NOT_LOADED)
    if _raised:
        told["callbacks"] = "raised: " + "; ".join(repr(exc) for exc in _raised)
    return told


def _describe(outcome: object) -> str:
    if isinstance(outcome, UnknownLayout):
        return f"unknown layout: {outcome}"
    if isinstance(outcome, BaseException):
        return f"failed: {outcome!r}"
    return DONE if outcome else NOT_NEEDED
