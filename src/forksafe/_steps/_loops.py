"""Rows 12 and 13: an inherited asyncio loop is a loop of this process alone.

In the child we put a fresh epoll and a fresh socket pair under the numbers of the shared ones:
callbacks and tasks stay. The loops of the forking thread are refreshed at once. Nothing lists the
other loops, so we refresh each at its first use: ``_selector`` of asyncio's loops is a property,
from the first fork on until `uninstall()`. An access costs 0.1 microseconds more.

The wakeup fd (``signal.set_wakeup_fd()``) would bring the child's SIGTERM to the parent's loop. We
unset it, as CPython does since 3.12 where asyncio was imported (gh-94454). Without it the handlers
of ``loop.add_signal_handler()`` and ``asyncio.run()`` do nothing. So until the child first runs the
loop, the signals that ask a process to end do end it; the other signals must not kill it.
"""

from __future__ import annotations

import errno
import os
import sys

from .._fork_event import KEPT, NOTHING, ForkEvent, Step, UnknownLayout, expect, this_process
from .._fork_event._signals import as_main_thread, c
from .._fork_event._typing import Any

_MODULE = "asyncio.selector_events"
_MARK = "_forksafe_process"
_SELECTORS = ("EpollSelector", "KqueueSelector", "PollSelector", "SelectSelector")

_first: object = None  # the mark of loops that were there before the property

_ENDING = [int(getattr(c, name)) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(c, name)]
_PLAIN = (int, type(c.getsignal))  # SIG_DFL, SIG_IGN; default_int_handler

_suspended: dict[int, Any] = {}  # by signal, the handler that a reset took away


_asyncio_hook = getattr(getattr(sys.modules.get("asyncio.events"), "on_fork", 0), "__code__", None)


class WakeupFdStep(Step):
    name = "wakeup fd"
    # Always, as nothing tells whether it is set; never where asyncio's hook unsets it before ours.
    looks = () if "set_wakeup_fd" in getattr(_asyncio_hook, "co_names", ()) else (":begun",)

    def reset(self, fork: ForkEvent, note: None) -> bool:
        with as_main_thread:
            return bool(c.set_wakeup_fd(-1) != -1)


class EventLoopsStep(Step):
    name = "event loops"
    modules = (_MODULE,)
    looks = (f"{_MODULE}:__name__",)

    def note(self, fork: ForkEvent) -> Any:
        base: Any = getattr(sys.modules[_MODULE], "BaseSelectorEventLoop", None)
        if getattr(base, "_selector", None) is not _selector:
            _begin(this_process.mark)
        # asyncio's own hook forgets these loops in the child, from 3.12 on (cpython gh-66285).
        loops, handlers = current_loops(), _suspendable()
        return (loops, handlers) if loops or handlers else NOTHING

    def reset(self, fork: ForkEvent, note: Any) -> bool | str:
        if note is None:
            _begin(None)
        loops, handlers = note or (current_loops(), _suspendable())
        with as_main_thread:
            for number, handler in handlers:
                c.signal(number, _default(number))
                _suspended[number] = handler
        KEPT.extend(loops)  # asyncio's hook would free them inside the fork, where they would close
        own = [loop for loop in loops if isinstance(loop, _loop_class())]
        for loop in own:
            _claim(loop)
        if len(own) < len(loops):
            return "left alone: a loop that is not asyncio's own"  # uvloop's, which is in C
        return bool(loops or handlers)

    def leave(self) -> None:
        if self.loaded() and getattr(_loop_class(), "_selector", None) is _selector:
            del _loop_class()._selector


def _loop_class() -> Any:
    base = getattr(sys.modules[_MODULE], "BaseSelectorEventLoop", None)
    expect(isinstance(base, type), "asyncio has no BaseSelectorEventLoop")
    return base


def current_loops() -> list[Any]:
    """Return the loops that run, or are current, in this thread; none is made. Reads only."""
    # Not the public functions: they make a policy and a loop, or warn, or raise.
    events: Any = sys.modules["asyncio.events"]
    running = events._get_running_loop()
    policy = getattr(events, "_event_loop_policy", None)
    current = getattr(getattr(policy, "_local", None), "_loop", None)
    return list({id(each): each for each in (running, current) if each is not None}.values())


def _begin(mark: object) -> None:
    """Make ``_selector`` the property, unless it is; `mark` is the mark of the existing loops."""
    global _first
    base = _loop_class()
    plain = getattr(base, "_selector", None)
    expect(plain in (None, _selector), "BaseSelectorEventLoop._selector is no plain attribute")
    if plain is None:
        _first = mark
        base._selector = _selector


def _claim(loop: Any) -> None:
    """Make an inherited loop one of this process."""
    state = loop.__dict__
    selector = state.get("_selector")
    if selector is not None and state.get("_ssock") is not None:  # it is open
        _refresh(loop, selector)
        _put_back_at_first_wait(loop, selector)
    state[_MARK] = this_process.mark


def _get(loop: Any) -> Any:
    state = loop.__dict__
    if state.get(_MARK, _first) is not this_process.mark:
        try:
            _claim(loop)
        except (UnknownLayout, KeyError):  # KeyError: as the interpreter ends, without modules
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


_selector = property(_get, _set)


def _refresh(loop: Any, selector: Any) -> None:
    """Give an open loop a fresh selector and self-pipe in place.

    An unknown kind of selector, or a lack of descriptors, raises before anything is changed.
    """
    pair: Any = loop._ssock, getattr(loop, "_csock", None)
    expect(all(hasattr(sock, "fileno") for sock in pair), "a loop without a self-pipe")
    keys: Any = getattr(selector, "_fd_to_key", None)
    expect(isinstance(keys, dict), f"{type(selector).__name__} has no _fd_to_key")
    types: list[Any] = [getattr(sys.modules["selectors"], name, ()) for name in _SELECTORS]
    known = [each for each in types if isinstance(selector, each)]
    expect(known, f"{type(selector).__name__} is no selector of the standard library")
    fresh = known[0]()
    # From C, since the socket module may not be whole yet.
    for ours, its in zip(sys.modules["_socket"].socketpair(), pair):
        os.set_blocking(ours.fileno(), False)
        os.dup2(ours.fileno(), its.fileno(), False)
        ours.close()
    os.write(pair[1].fileno(), b"\0")  # a wakeup on its way in the old pair would be lost
    for key in list(keys.values()):
        try:
            fresh.register(key.fd, key.events)
        except OSError as exc:
            # Closed, while the selector still has it; a plain file may have its number now.
            if exc.errno not in (errno.EBADF, errno.EPERM):
                raise
    if known[0] is types[1]:  # pragma: no cover # a kqueue does not survive a fork: kqueue(2)
        KEPT.append(selector._selector)  # its number means nothing in this process
        selector._selector = fresh._selector
        return
    if known[0] is types[0]:
        os.dup2(fresh.fileno(), selector.fileno(), False)
    fresh.close()


def _suspendable() -> list[tuple[int, Any]]:
    """Return the signals that ask a process to end and that only a running loop answers."""
    found = [(n, handler) for n in _ENDING if type(handler := c.getsignal(n)) not in _PLAIN]
    if not found:
        return found
    # asyncio's handler that does nothing: the wakeup fd carries the number to the loop.
    noop = getattr(sys.modules.get("asyncio.unix_events"), "_sighandler_noop", object())
    return [each for each in found if each[1] is noop or _runner(each[1]) is not None]


def _put_back_at_first_wait(loop: Any, selector: Any) -> None:
    """See to it that the signal handlers of `loop` work again once this process runs it."""
    if not getattr(loop, "_signal_handlers", None) and not _suspended:
        return

    def select(timeout: float | None = None) -> Any:
        del selector.select  # the class's own from now on
        _put_back(loop)
        return selector.select(timeout)

    selector.select = select


def _put_back(loop: Any) -> None:
    handlers = getattr(loop, "_signal_handlers", None) or {}
    try:
        if handlers:
            c.set_wakeup_fd(loop._csock.fileno())
        for number, handler in list(_suspended.items()):
            runner = _runner(handler)
            wanted = number in handlers if runner is None else runner._loop is loop
            if wanted and c.getsignal(number) == _default(number):
                c.signal(number, handler)
                if runner is None:
                    c.siginterrupt(number, False)  # as add_signal_handler() does
                del _suspended[number]
    except ValueError:  # not the main thread, where asyncio refuses signal handlers as well
        pass


def _runner(handler: Any) -> Any:
    """Return the ``asyncio.Runner`` that installed this handler of SIGINT, or None."""
    runner = getattr(getattr(handler, "func", None), "__self__", None)  # of a functools.partial
    kind = getattr(sys.modules.get("asyncio.runners"), "Runner", ())
    return runner if isinstance(runner, kind) and hasattr(runner, "_loop") else None


def _default(number: int) -> Any:
    """Return what a signal does without any event loop."""
    return c.default_int_handler if number == c.SIGINT else c.SIG_DFL
