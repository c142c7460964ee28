"""Row 13: an asyncio loop made before the fork is a loop of this process alone.

Parent and child share the loop's epoll and its self-pipe, so each deafens the other (see
`_descriptors`). The loop that runs in the forking thread and the one that is current
there are found before the fork, and told apart in the child at once: the standard library's own
hook forgets both from 3.12 on (cpython gh-66285), and with the last reference to it a loop closes
itself, which deregisters its self-pipe from the epoll that the parent uses.

Other loops are in some variable, and nothing lists them. They are told apart when they are first
used: from the first fork on, ``_selector`` of asyncio's selector loops is a property, and whatever
a loop does to its epoll, running, adding and removing readers, closing, begins with that attribute.
A loop that this process made, or told apart already, carries its mark, or was there before the
property in the process that put it there. An access costs about 0.1 microseconds more.

What the child does *not* get: a running loop. None runs in it, ``asyncio.run()`` works. A loop
that ran in a thread of the parent's is in the middle of a step that will never end; so it still
says that it runs, and the child needs one of its own. From 3.14 on no task of the parent's can go
on, or be left by ``sys.exit()``: asyncio itself raises that its loop is not the running one. Loops
that are not asyncio's own (uvloop) keep what they have in C, and are left alone.
"""

from __future__ import annotations

import sys
from _thread import get_ident

from ..._fork_event import _mark as _process
from ..._fork_event._step import NOTHING, Step, UnknownLayout, expect
from . import _descriptors as _loop_descriptors
from . import _signal_handlers as _loop_handlers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..._fork_event import Forking

_MARK = "_forksafe_process"

_ASYNCIOS = "asyncio.selector_events:BaseSelectorEventLoop"
_UVLOOPS = "uvloop.loop:Loop"


class EventLoopsStep(Step):
    name = "event loops"
    modules = ("asyncio.selector_events",)

    def __init__(self) -> None:
        self._ours = _Ours()
        # Kept: the standard library's hook would drop the last reference inside the fork, and the
        # loop would close itself there, with a warning.
        self._loops: list[Any] = []

    def note(self, fork: Forking) -> tuple[list[Any], list[tuple[int, Any]]]:
        if fork.fresh:
            self._ours.begin(inherited=False)
        loops, handlers = current_loops(), _loop_handlers.suspendable()
        return (loops, handlers) if loops or handlers else NOTHING

    def reset(self, fork: Forking, note: tuple[list[Any], list[tuple[int, Any]]] | None) -> bool:
        if note is None:
            self._ours.begin(inherited=True)
            note = current_loops(), _loop_handlers.suspendable()
        loops, handlers = note
        if handlers:
            _loop_handlers.suspend(handlers)
        if loops:
            self._loops = loops
            self._ours.claim_all(loops)
        return bool(loops or handlers)


def current_loops() -> list[Any]:
    """Return the loops that run, or are current, in this thread; none is made. Reads only."""
    events = sys.modules.get("asyncio.events")
    # Not the public functions: they make a policy and a loop, or warn, or raise.
    get_running = getattr(events, "_get_running_loop", None)
    running = None if get_running is None else get_running()
    policy = getattr(events, "_event_loop_policy", None)
    current = None if policy is None else getattr(getattr(policy, "_local", None), "_loop", None)
    if current is None or current is running:
        return [] if running is None else [running]
    return [current] if running is None else [running, current]


def _name(loop: Any) -> str:
    return f"{type(loop).__module__}:{type(loop).__qualname__}"


class _Ours:
    """Which loops are of this process, and the property that sees to the others."""

    def __init__(self) -> None:
        self._first: object = None
        self._property = property(self._get, self._set, self._delete)

    def begin(self, *, inherited: bool) -> None:
        """Put the property there, where it is not; take the loops there are for `inherited`."""
        base: Any = getattr(sys.modules["asyncio.selector_events"], "BaseSelectorEventLoop", None)
        installed = getattr(base, "_selector", None)
        if installed is not self._property:
            expect(isinstance(base, type), "asyncio has no BaseSelectorEventLoop")
            expect(installed is None, "BaseSelectorEventLoop._selector is no plain attribute")
            self._first = None if inherited else _process.mark
            base._selector = self._property

    def claim_all(self, loops: list[Any]) -> None:
        """Claim each of `loops`, whatever another fails with; then raise the last of that."""
        base = sys.modules["asyncio.selector_events"].BaseSelectorEventLoop
        failure: Exception | None = None
        for loop in loops:
            try:
                expect(isinstance(loop, base), f"left alone, not asyncio's own: {_name(loop)}")
                self.claim(loop)
            except (OSError, UnknownLayout) as exc:
                failure = exc
        if failure is not None:
            raise failure

    def claim(self, loop: Any) -> None:
        """Make an inherited loop one of this process; do nothing where it is."""
        state = loop.__dict__
        if state.get(_MARK, self._first) is not _process.mark:
            selector = state.get("_selector")
            _loop_descriptors.refresh(loop, selector)
            state[_MARK] = _process.mark
            if selector is not None:
                _loop_handlers.put_back_at_first_wait(loop, selector)

    def _get(self, loop: Any) -> Any:
        state = loop.__dict__
        if state.get(_MARK, self._first) is not _process.mark:
            self._claim_if_known(loop)
        try:
            return state["_selector"]
        except KeyError:
            raise AttributeError("_selector") from None

    def _claim_if_known(self, loop: Any) -> None:
        try:
            self.claim(loop)
        except UnknownLayout:
            loop.__dict__[_MARK] = _process.mark  # left alone, and not asked again

    def _set(self, loop: Any, selector: Any) -> None:
        state = loop.__dict__
        if "_selector" not in state:
            state[_MARK] = _process.mark  # made by this process, just now
        state["_selector"] = selector

    def _delete(self, loop: Any) -> None:
        try:
            del loop.__dict__["_selector"]
        except KeyError:
            raise AttributeError("_selector") from None
