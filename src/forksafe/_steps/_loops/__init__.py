"""Row 13: an asyncio loop made before the fork is a loop of this process alone.

Parent and child share the loop's epoll and its self-pipe, so each deafens the other (see
`_descriptors`). The loop that runs in the forking thread and the one that is current there are
found before the fork, and told apart in the child at once: the standard library's own hook forgets
both from 3.12 on (cpython gh-66285), and with the last reference to it a loop closes itself, which
deregisters its self-pipe from the epoll that the parent uses.

Other loops are in some variable, and nothing lists them. They are told apart when they are first
used: from the first fork on, until `uninstall()`, ``_selector`` of asyncio's selector loops is a
property, and whatever a loop does to its epoll, running, adding and removing readers, closing,
begins with that attribute. A loop that this process made, or told apart already, carries its mark,
or was there before the property in the process that put it there. An access costs about 0.1
microseconds more.

What the child does *not* get: a running loop. None runs in it, ``asyncio.run()`` works. A loop
that ran in a thread of the parent's is in the middle of a step that will never end; so it still
says that it runs, and the child needs one of its own. From 3.14 on no task of the parent's can go
on, or be left by ``sys.exit()``: asyncio itself raises that its loop is not the running one. Loops
that are not asyncio's own (uvloop) keep what they have in C, and are left alone.
"""

from __future__ import annotations

import sys

from ..._fork_event import this_process
from ..._fork_event._step import NOTHING, Step, UnknownLayout, expect
from ._descriptors import refresh
from ._signal_handlers import ENDING, put_back_at_first_wait, suspend, suspendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._fork_event import ForkEvent

_MARK = "_forksafe_process"

getsignal: Any = sys.modules["_signal"].getsignal
_PLAIN = (int, type(getsignal))  # SIG_DFL, SIG_IGN; default_int_handler


class EventLoopsStep(Step):
    name = "event loops"
    modules = ("asyncio.selector_events",)

    def __init__(self) -> None:
        # Kept: the standard library's hook would drop the last reference inside the fork, and the
        # loop would close itself there, with a warning.
        self._loops: list[Any] = []

    def note(self, fork: ForkEvent) -> tuple[list[Any], list[tuple[int, Any]]]:
        base = getattr(sys.modules["asyncio.selector_events"], "BaseSelectorEventLoop", None)
        if getattr(base, "_selector", None) is not _selector:
            _begin(inherited=False)
        loops = current_loops()
        for number in ENDING:
            if type(getsignal(number)) not in _PLAIN:
                return loops, suspendable()
        return (loops, []) if loops else NOTHING

    def reset(self, fork: ForkEvent, note: tuple[list[Any], list[tuple[int, Any]]] | None) -> bool:
        base = _loop_class()
        if note is None and getattr(base, "_selector", None) is not _selector:
            _begin(inherited=True)
        loops, handlers = note or (current_loops(), suspendable())
        suspend(handlers)
        self._loops += loops
        failure: Exception | None = None
        for loop in loops:
            try:
                expect(isinstance(loop, base), f"left alone, not asyncio's own: {name_of(loop)}")
                _claim(loop)
            except (OSError, UnknownLayout) as exc:
                failure = exc  # the others are told apart all the same
        if failure is not None:
            raise failure
        return bool(loops or handlers)

    def leave(self) -> None:
        base: Any = _loop_class() if self.loaded() else None
        if getattr(base, "_selector", None) is _selector:
            del base._selector


def _loop_class() -> Any:
    base: Any = getattr(sys.modules["asyncio.selector_events"], "BaseSelectorEventLoop", None)
    expect(isinstance(base, type), "asyncio has no BaseSelectorEventLoop")
    return base


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


def name_of(loop: Any) -> str:
    """Return the name of a loop's class."""
    return f"{type(loop).__module__}:{type(loop).__qualname__}"


# The mark of those loops that were there before the property.
_first: object = None


def _begin(*, inherited: bool) -> None:
    """Put the property there; take the loops that are there for inherited ones, or for our own."""
    global _first
    base = _loop_class()
    expect(
        getattr(base, "_selector", None) is None,
        "BaseSelectorEventLoop._selector is no plain attribute",
    )
    _first = None if inherited else this_process.mark
    base._selector = _selector


def _claim(loop: Any) -> None:
    """Make an inherited loop one of this process; do nothing where it is."""
    state = loop.__dict__
    if state.get(_MARK, _first) is not this_process.mark:
        selector = state.get("_selector")
        refresh(loop, selector)
        state[_MARK] = this_process.mark
        if selector is not None:
            put_back_at_first_wait(loop, selector)


def _get(loop: Any) -> Any:
    state = loop.__dict__
    if state.get(_MARK, _first) is not this_process.mark:
        try:
            _claim(loop)
        except (UnknownLayout, KeyError):  # the latter as the interpreter ends, without modules
            state[_MARK] = this_process.mark  # left alone, and not asked again
    try:
        return state["_selector"]
    except KeyError:
        raise AttributeError("_selector") from None


def _set(loop: Any, selector: Any) -> None:
    state = loop.__dict__
    if "_selector" not in state:
        state[_MARK] = this_process.mark  # made by this process, just now
    state["_selector"] = selector


def _delete(loop: Any) -> None:
    try:
        del loop.__dict__["_selector"]
    except KeyError:
        raise AttributeError("_selector") from None


_selector = property(_get, _set, _delete)
