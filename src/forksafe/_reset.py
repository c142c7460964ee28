"""Running the steps: their notes before a fork, their resets in the child.

The cost of a fork is pages that are written to: by the child, by the parent after it, and by the
parent before the next one. Any use of an object writes to its page, and a function of Python has a
few of its own. So `note` goes through one table, in its own frame: most steps have nothing to do.
"""

from __future__ import annotations

import os
import sys
from _operator import attrgetter

from ._fork_event import NOTHING, ForkEvent, Step, UnknownLayout, tell, this_process
from ._fork_event._threads import end_turn, look
from ._fork_event._typing import Any, Iterator
from ._steps import STEPS


def _rows(late: bool) -> Iterator[tuple[str, Any, str, tuple[Any, ...]]]:
    """Yield where steps look (`Step.looks`), and their bound methods, made just once."""
    for index, step in enumerate(STEPS):
        take = None if type(step).note is Step.note else step.note
        for where in step.looks if step.late == late else ():
            module, path, key = f"{where}::".split(":")[:3]
            needs = () if module in step.modules else step.modules
            do = index, needs, take, step.reset
            yield sys.intern(module), attrgetter(path), sys.intern(key), do


_EARLY, _LATE = [*_rows(late=False)], [*_rows(late=True)]
# Looks at most, while threads move: after one look 1 of 1,000 children had a lock just taken.
_LOOKS = 8
# The last reset of this process, and the outcome of each step; `last_reset` formats them.
_last: tuple[ForkEvent, list[object]] | None = None
# What was told already: where a layout is unknown to the parent, its children need not tell again.
_told: set[str] = set()


def note(event: ForkEvent) -> None:
    """Let every step note what it needs; look at the other threads before the late steps do."""
    loaded = sys.modules
    notes: dict[int, tuple[Any, Any]] = {}
    early = notes
    for rows in (_EARLY, *(_LATE,) * (_LOOKS if event.beside_threads else 1)):
        if rows is _LATE:
            if event.beside_threads:
                if event.stacks is not None and event.stacks.are_true():
                    return  # at once: whatever is called lets another thread have the GIL
                event.stacks = look(again=event.stacks is not None)
            notes = early.copy()
        for module, attributes, key, do in rows:
            thing: Any = loaded.get(module) if module else event
            if thing is None:
                continue
            try:
                found = attributes(thing)
                if not (key in found if key else found):
                    continue
                index, needs, take, make_whole = do
                if index in notes or (needs and loaded.keys().isdisjoint(needs)):
                    continue
                noted = take(event) if take else None
            except Exception as exc:
                event.is_of_handler(exc)
                index, needs, _, make_whole = do
                if needs and loaded.keys().isdisjoint(needs):
                    continue
                noted = None  # the reset does without, and meets in the child what was wrong
            if noted is not NOTHING:
                notes.setdefault(index, (make_whole, noted))
        event.notes = sorted(notes.items())
        if event.stacks is not None and event.stacks.asleep:
            end_turn()  # nobody waits for the GIL


def reset(event: ForkEvent) -> object:
    """Make the child whole, whatever any step raises; the hook is to return the result."""
    global _last
    if event.notes is None:
        event.notes = [(n, (each.reset, None)) for n, each in enumerate(STEPS) if each.loaded()]
    outcomes: list[object] = []
    _last = event, outcomes
    this_process.whole = (this_process.forks, os.getpid())
    this_process.mark = outcomes  # an object like no other
    end_turn()
    for index, (make_whole, noted) in event.notes:
        try:
            outcomes.append(make_whole(event, noted))
        except BaseException as exc:
            outcomes.append(exc)
            text = f"forksafe, in a forked child: step {STEPS[index].name!r}"
            if (key := f"{text}{exc}") not in _told:
                _told.add(key)
                tell(exc, text)
            exc.__traceback__ = None
    event.ended = not event.deferred
    return event.finish() if event.ended else None


def last_reset() -> dict[str, str] | None:
    """Tell what the reset did in this process.

    Returns:
        None where no reset ran in this process. Else, for each step by name, in the order they ran:
        ``"done"``, ``"done: 2 freed"``, ``"not needed"``, ``"not loaded"`` (no module with such
        state was imported), ``"left alone: ..."`` (other threads cannot be looked at),
        ``"unknown layout: ..."`` (left alone: as on no Python that this forksafe knows) or
        ``"failed: ..."``. Under ``"callbacks"``: what callbacks of the after-fork registry raised.
    """
    if _last is None:
        return None
    event, results = _last
    outcomes = {index: outcome for (index, _), outcome in zip(event.notes or (), results)}
    told = {}
    for index, step in enumerate(STEPS):
        outcome = outcomes.get(index, False)
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
