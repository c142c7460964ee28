"""Running the steps: their notes before a fork, their resets in the child.

The cost of a fork is pages that are written to: by the child, by the parent after it, and by the
parent before the next one. Any use of an object writes to its page, and a function of Python has a
few of its own. So `note` goes through one table, in its own frame, to see which steps have anything
to do. Most have not.
"""

from __future__ import annotations

import os
import sys
from _operator import attrgetter

from ._fork_event import NOTHING, ForkEvent, Step, UnknownLayout, tell, this_process
from ._fork_event._threads import end_turn, look
from ._fork_event._typing import Any, Iterator
from ._steps import STEPS
from ._steps._mp import finish


def _rows(step: Step) -> Iterator[tuple[Step, Any, str, Any, str]]:
    """Yield where a step looks, as `Step.looks` has it, and how it takes notes then."""
    take = None if type(step).note is Step.note else step.note
    for where in step.looks:
        module, path, key = f"{where}::".split(":")[:3]
        yield step, take, sys.intern(module), attrgetter(path), sys.intern(key)


_EARLY, _LATE = ([r for step in STEPS if step.late == late for r in _rows(step)] for late in (0, 1))
# Where a thread has run meanwhile, 1 of 1,000 children had a lock that it had just taken.
_LOOKS = 8
# The last reset of this process; formatted only when asked for.
_last: tuple[ForkEvent, dict[Step, object]] | None = None
# What was told already: a layout that a parent did not know is no news from each of its children.
_told: set[str] = set()


def note(event: ForkEvent) -> None:
    """Let every step look at the parent, and look at the stacks of its threads in between."""
    loaded = sys.modules
    early: dict[Step, Any] = {}
    try:
        for rows in (_EARLY, *(_LATE,) * (_LOOKS if event.beside_threads else 1)):
            if rows is _LATE and event.beside_threads:
                if event.stacks is not None and event.stacks.are_true():
                    break
                event.stacks = look(again=event.stacks is not None)
            event.notes = notes = early.copy()
            for step, take, module, attributes, key in rows:
                thing: Any = loaded.get(module) if module else event
                if thing is None or step in notes:
                    continue
                try:
                    found = attributes(thing)
                    if not (key in found if key else found):
                        continue
                    if step.modules and loaded.keys().isdisjoint(step.modules):
                        continue
                    noted = take(event) if take else None
                except Exception:
                    noted = None  # the reset does without, and meets in the child what was wrong
                if noted is not NOTHING:
                    # Attributes that the parent has looked up are at hand in the child.
                    notes[step] = step.reset, noted
            if rows is _EARLY:
                early = notes
    finally:
        if event.stacks is not None and event.stacks.asleep:
            end_turn()  # nobody waits for the GIL
        elif event.beside_threads:
            event.undo += (end_turn,)


def reset(event: ForkEvent) -> object:
    """Make the child whole, whatever any step raises; then run the program's callbacks.

    The hook is to return the result: see `Signals.release_in_hook`.
    """
    global _last
    notes = event.notes
    if notes is None:
        notes = {step: (step.reset, None) for step in STEPS if step.loaded()}
    outcomes: dict[Step, object] = {}
    _last = event, outcomes
    this_process.whole = (this_process.forks, os.getpid())
    this_process.mark = outcomes  # an object like no other
    if event.undo and end_turn in event.undo:
        end_turn()
    for step in STEPS:
        if step not in notes:
            continue
        make_whole, noted = notes[step]
        try:
            outcomes[step] = make_whole(event, noted)
        except BaseException as exc:
            outcomes[step] = exc
            text = f"forksafe, in a forked child: step {step.name!r}"
            if (key := f"{text}{exc}") not in _told:
                _told.add(key)
                tell(exc, text)
            exc.__traceback__ = None
    event.ended = not event.deferred
    return finish(event) if event.ended else None


def last_reset() -> dict[str, str] | None:
    """Tell what the reset did in this process.

    Returns:
        None where no reset ran in this process. Else, for each step by name, in the order they ran:
        ``"done"``, ``"done: 2 freed"``, ``"not needed"``, ``"not loaded"`` (no module with such
        state was imported), ``"unknown layout: ..."`` (left alone: it looks as on no Python that
        this forksafe knows) or ``"failed: ..."``. Under ``"callbacks"``: what callbacks of
        ``multiprocessing.util.register_after_fork`` raised, if any did.
    """
    if _last is None:
        return None
    event, outcomes = _last
    told = {}
    for step in STEPS:
        outcome = outcomes.get(step, False)
        if isinstance(outcome, UnknownLayout):
            outcome = f"unknown layout: {outcome}"
        elif isinstance(outcome, BaseException):
            outcome = f"failed: {outcome!r}"
        elif not isinstance(outcome, str):
            outcome = "done" if outcome else "not needed" if step.loaded() else "not loaded"
        told[step.name] = outcome
    if event.raised:
        told["callbacks"] = "raised: " + "; ".join(repr(exc) for exc in event.raised)
    return told
