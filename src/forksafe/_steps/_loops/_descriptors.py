"""An inherited asyncio loop gets a selector and a self-pipe of its own: under the same numbers.

A fork shares both. With one epoll for two processes, the child's ``remove_reader()`` makes the
parent deaf; with one self-pipe, each process swallows the wakeups of the other. They are told
apart here by ``dup2()``: a fresh epoll and a fresh socket pair take over the numbers of the old
ones, in this process alone. So no Python object changes, whoever holds the selector, the sockets
or their numbers benefits, and nothing is ever deregistered from what the parent uses.

The fresh epoll watches what the old one did. Callbacks and tasks of the loop stay as they are:
a server that was set up before the fork is to run in the child. What the parent's *running* tasks
left in it stays as well, and runs if the child goes on running that loop.
"""

from __future__ import annotations

import errno
import os
import sys

from ..._fork_event._step import expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOT_WATCHED = (errno.EBADF, errno.EPERM)

# Their numbers are not this process's: their finalizers must never run.
_lost_kqueues: list[object] = []


def refresh(loop: Any, selector: Any) -> None:
    """Give `loop` a fresh selector and self-pipe in place; a closed loop is left alone.

    Args:
        loop: An instance of ``asyncio.selector_events.BaseSelectorEventLoop``.
        selector: Its selector.

    Raises:
        UnknownLayout: The selector is of no known kind. Nothing was changed.
        OSError: No file descriptor is left. Nothing was changed.
    """
    ssock = getattr(loop, "_ssock", None)
    csock = getattr(loop, "_csock", None)
    if selector is None or (ssock is None and csock is None):
        return  # closed, or never begun
    expect(
        hasattr(ssock, "fileno") and hasattr(csock, "fileno"),
        "a loop without a self-pipe",
    )
    assert ssock is not None and csock is not None
    keys = getattr(selector, "_fd_to_key", None)
    expect(isinstance(keys, dict), f"{type(selector).__name__} has no _fd_to_key")
    assert keys is not None
    kind = _kind(selector)
    expect(kind, f"{type(selector).__name__} is no selector of the standard library")
    inner: Any = getattr(selector, "_selector", None)
    fresh: Any = type(inner)() if kind in ("epoll", "kqueue") else None
    try:
        _replace_pair(ssock.fileno(), csock.fileno())
        if kind == "epoll":
            os.dup2(fresh.fileno(), inner.fileno(), False)
    finally:
        if kind == "epoll":
            fresh.close()
    if kind == "epoll":
        _watch_by_epoll(inner, selector, keys)
    elif kind == "kqueue":  # pragma: no cover # no such platform in the tests
        _lost_kqueues.append(inner)
        selector._selector = fresh
        _watch_by_kqueue(fresh, keys)


def _kind(selector: Any) -> str:
    select = sys.modules["select"]
    selectors = sys.modules["selectors"]
    inner = getattr(selector, "_selector", None)
    for kind in ("epoll", "kqueue"):
        kernel_type = getattr(select, kind, None)
        if kernel_type is not None and isinstance(inner, kernel_type):
            return kind
    for name in ("PollSelector", "SelectSelector"):
        cls = getattr(selectors, name, None)
        if cls is not None and isinstance(selector, cls):
            return "memory"  # the kernel keeps nothing between two calls
    return ""


def _replace_pair(reader: int, writer: int) -> None:
    # From C: nothing of the socket module need be whole yet.
    one, other = sys.modules["_socket"].socketpair()
    try:
        for sock, number in ((one, reader), (other, writer)):
            os.set_blocking(sock.fileno(), False)
            os.dup2(sock.fileno(), number, False)
    finally:
        one.close()
        other.close()
    # A wakeup more than needed does no harm. One that was on its way in the old pair, when the
    # loop had looked at its queue already, would be lost.
    os.write(writer, b"\0")


def _watch_by_epoll(epoll: Any, selector: Any, keys: dict[int, Any]) -> None:
    # As _PollLikeSelector.register() in selectors.py.
    module = sys.modules["selectors"]
    for key in list(keys.values()):
        mask = selector._EVENT_READ if key.events & module.EVENT_READ else 0
        mask |= selector._EVENT_WRITE if key.events & module.EVENT_WRITE else 0
        try:
            epoll.register(key.fd, mask)
        except OSError as exc:
            if exc.errno not in _NOT_WATCHED:  # closed, without a word to the selector
                raise


def _watch_by_kqueue(kqueue: Any, keys: dict[int, Any]) -> None:  # pragma: no cover # as above
    # As KqueueSelector.register() in selectors.py. A kqueue does not survive a fork: kqueue(2).
    select = sys.modules["select"]
    module = sys.modules["selectors"]
    for key in list(keys.values()):
        for event, name in ((module.EVENT_READ, "READ"), (module.EVENT_WRITE, "WRITE")):
            if key.events & event:
                kevent = select.kevent(
                    key.fd, getattr(select, f"KQ_FILTER_{name}"), select.KQ_EV_ADD
                )
                try:
                    kqueue.control([kevent], 0, 0)
                except OSError as exc:
                    if exc.errno not in _NOT_WATCHED:
                        raise
