"""Row 12: the wakeup fd; and the signal handlers of an inherited asyncio loop.

``signal.set_wakeup_fd()`` names a socket that takes each signal's number: the parent's loop would
take the child's SIGTERM for its own. CPython unsets it since 3.12 where asyncio was imported
(cpython gh-94454). Without it the handlers of ``loop.add_signal_handler()`` and ``asyncio.run()``
do nothing, and nothing short of SIGKILL could end a child. So there the signals that ask a process
to end do that again; of others, which the parent knows how to take, a child must not die. Where the
child does run the loop, its first wait for events puts all of it back.
"""

from __future__ import annotations

import sys

from .._fork_event import ForkEvent
from .._fork_event._signals import as_main_thread, c
from .._fork_event._step import Step
from .._fork_event._typing import Any

_ENDING = [int(getattr(c, name)) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(c, name)]
_PLAIN = (int, type(c.getsignal))  # SIG_DFL, SIG_IGN; default_int_handler

# What was taken away since the loops were made, in this process or in the ones before it.
_suspended: dict[int, Any] = {}


class WakeupFdStep(Step):
    name = "wakeup fd"

    def reset(self, fork: ForkEvent, note: None) -> bool:
        try:
            fd: int = c.set_wakeup_fd(-1)  # no way to ask without setting
        except ValueError:  # not the main thread, says PyPy
            with as_main_thread:
                fd = c.set_wakeup_fd(-1)
        return fd != -1


def suspendable() -> list[tuple[int, Any]]:
    """Return the signals that ask a process to end and that only a running loop answers."""
    # asyncio's handler that does nothing: the wakeup fd carries the number to the loop.
    noop = getattr(sys.modules.get("asyncio.unix_events"), "_sighandler_noop", object())
    found = [(n, handler) for n in _ENDING if type(handler := c.getsignal(n)) not in _PLAIN]
    return [each for each in found if each[1] is noop or _runner(each[1]) is not None]


def suspend(handlers: list[tuple[int, Any]]) -> None:
    """Give these signals, in the child, what they do without any event loop."""
    with as_main_thread:
        for number, handler in handlers:
            c.signal(number, _default(number))
            _suspended[number] = handler


def put_back_at_first_wait(loop: Any, selector: Any) -> None:
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
            other = c.set_wakeup_fd(loop._csock.fileno())
            if other != -1:  # of another loop, that this process has made
                c.set_wakeup_fd(other)
                return
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
    runner_type = getattr(sys.modules.get("asyncio.runners"), "Runner", None)
    method: Any = getattr(handler, "func", None)  # a functools.partial (cpython gh-83803)
    on_sigint = getattr(runner_type, "_on_sigint", None)
    if on_sigint is None or getattr(method, "__func__", None) is not on_sigint:
        return None
    return method.__self__ if hasattr(method.__self__, "_loop") else None


def _default(number: int) -> Any:
    return c.default_int_handler if number == c.SIGINT else c.SIG_DFL
