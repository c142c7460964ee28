"""Row 12, the wakeup fd; and the signal handlers of an inherited asyncio loop.

``signal.set_wakeup_fd()`` names a socket that the interpreter's own signal handler, in C, writes
each signal's number into. After a fork that socket is one for both processes: the child's SIGTERM
reaches the parent's loop, which takes it for its own. So the child starts without one, whoever set
it: asyncio, trio, tornado, twisted, a program. CPython does the same since 3.12, but only where
asyncio was imported (cpython gh-94454).

``loop.add_signal_handler()`` installs a handler that does nothing, and lets the wakeup fd carry the
signal's number to the loop. A child has no wakeup fd and, as a rule, does not run that
loop: it would ignore every such signal, and nothing short of SIGKILL could end it. The same holds
for Ctrl-C inside ``asyncio.run()`` (3.11 and later), whose handler cancels the parent's main task.

So in the child the signals that ask a process to end (`ENDING`) do that again, by the disposition
that ``remove_signal_handler()`` would leave. Others keep the handler that does nothing: a child
must not die of the SIGUSR1 or SIGHUP that its parent knows how to take.

Where the child does run the loop, which was set up before the fork to that purpose, its handlers
must work. Its first wait for events puts them back, with the loop's own self-pipe as wakeup fd.
"""

from __future__ import annotations

import sys

from ..._fork_event._signals import as_main_thread
from ..._fork_event._signals import c as _c
from ..._fork_event._step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._fork_event import ForkEvent

ENDING = tuple(
    int(getattr(_c, name)) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(_c, name)
)

# What was taken away since the loops were made, in this process or in the ones before it.
_suspended: dict[int, Any] = {}


class WakeupFdStep(Step):
    name = "wakeup fd"

    def reset(self, fork: ForkEvent, note: None) -> bool:
        # No way to ask without setting.
        try:
            fd: int = _c.set_wakeup_fd(-1)
        except ValueError:  # not the main thread, says PyPy
            with as_main_thread:
                fd = _c.set_wakeup_fd(-1)
        return fd != -1


def suspendable() -> list[tuple[int, Any]]:
    """Return the signals of `ENDING`, with their handlers, that only a running loop answers."""
    found = []
    for number in ENDING:
        handler = _c.getsignal(number)
        if type(handler) is int or handler is _c.default_int_handler:
            continue  # the usual ones; the first stands for SIG_DFL and SIG_IGN
        if _is_loops(handler) or _runner(handler) is not None:
            found.append((number, handler))
    return found


def suspend(handlers: list[tuple[int, Any]]) -> None:
    """Give these signals, in the child, what they do without any event loop."""
    with as_main_thread:
        for number, handler in handlers:
            _c.signal(number, _default(number))
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
            other = _c.set_wakeup_fd(loop._csock.fileno())
            if other != -1:  # of another loop, that this process has made
                _c.set_wakeup_fd(other)
                return
        for number, handler in list(_suspended.items()):
            runner = _runner(handler)
            wanted = number in handlers if runner is None else runner._loop is loop
            if wanted and _c.getsignal(number) == _default(number):
                _c.signal(number, handler)
                if runner is None:
                    _c.siginterrupt(number, False)  # as add_signal_handler() does
                del _suspended[number]
    except ValueError:  # not the main thread, where asyncio refuses signal handlers as well
        pass


def _is_loops(handler: Any) -> bool:
    noop = getattr(sys.modules.get("asyncio.unix_events"), "_sighandler_noop", None)
    return noop is not None and handler is noop


def _runner(handler: Any) -> Any:
    """Return the ``asyncio.Runner`` that installed this handler of SIGINT, or None."""
    on_sigint = getattr(
        getattr(sys.modules.get("asyncio.runners"), "Runner", None), "_on_sigint", None
    )
    method = getattr(handler, "func", None)  # a functools.partial (cpython gh-83803)
    if on_sigint is None or getattr(method, "__func__", None) is not on_sigint:
        return None
    runner = method.__self__  # type: ignore[union-attr] # it has __func__
    return runner if hasattr(runner, "_loop") else None


def _default(number: int) -> Any:
    return _c.default_int_handler if number == _c.SIGINT else _c.SIG_DFL
