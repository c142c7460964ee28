"""Row 21: records that wait in a handler of `logging` are the parent's, and so is its connection.

A ``MemoryHandler`` holds records back, and both processes would write them. A ``SocketHandler``,
and a ``SysLogHandler`` over TCP, has one connection, into which both would write. In the child the
records are gone, and the handler connects anew at its next record; the parent's socket is kept, and
silent. Datagrams stay as they are: a record is one message, whoever sends it.
"""

from __future__ import annotations

import sys

from .._fork_event._step import NOTHING, Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .._fork_event import ForkEvent

_MODULE = "logging.handlers"


class LogHandlersStep(Step):
    name = "log handlers"
    modules = (_MODULE,)

    def __init__(self) -> None:
        self._parents: list[object] = []  # kept: records hold objects of the program's

    def note(self, fork: ForkEvent) -> Any:
        return None if any(True for _ in waiting_handlers()) else NOTHING

    def reset(self, fork: ForkEvent, note: None) -> bool:
        done = False
        for handler, attribute in waiting_handlers():
            done = True
            had = getattr(handler, attribute)
            if attribute == "buffer":
                expect(type(had) is list, f"{type(handler).__name__}.buffer is no list")
                self._parents.append(list(had))
                had.clear()
                continue
            self._parents.append(had)
            # Since 3.11 a SysLogHandler connects by itself where it has no socket.
            by_itself = attribute == "sock" or hasattr(type(handler), "createSocket")
            setattr(handler, attribute, None if by_itself else _Later(handler, had))
        return done


def waiting_handlers() -> Iterator[tuple[Any, str]]:
    """Yield handlers with something of this process in an attribute, and its name. Reads only."""
    module: Any = sys.modules.get(_MODULE)
    if module is None:
        return
    for reference in list(getattr(sys.modules["logging"], "_handlerList", ())):
        handler = reference()
        state = getattr(handler, "__dict__", {})
        if isinstance(handler, module.BufferingHandler):
            if state.get("buffer"):
                yield handler, "buffer"
        elif isinstance(handler, module.SocketHandler):
            # A DatagramHandler's socket is a datagram one.
            if _is_stream(state.get("sock")):
                yield handler, "sock"
        elif isinstance(handler, module.SysLogHandler) and _is_stream(state.get("socket")):
            yield handler, "socket"


def _is_stream(sock: Any) -> bool:
    return bool(getattr(sock, "type", None) == sys.modules["socket"].SOCK_STREAM)


class _Later:
    """Stands in for the socket of a ``SysLogHandler``, up to 3.10, until its next record."""

    def __init__(self, handler: Any, had: Any) -> None:
        self._handler = handler
        self._had = had

    def _connected(self) -> Any:
        # As SysLogHandler.__init__() does it.
        handler = self._handler
        if handler.unixsocket:
            handler._connect_unixsocket(handler.address)
        else:
            sock = sys.modules["socket"].socket(self._had.family, handler.socktype)
            sock.connect(handler.address)
            handler.socket = sock
        return handler.socket

    def sendall(self, data: bytes) -> None:
        self._connected().sendall(data)

    def send(self, data: bytes) -> None:
        self._connected().sendall(data)

    def close(self) -> None:
        """Nothing is open yet."""
