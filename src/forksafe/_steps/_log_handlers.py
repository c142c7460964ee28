"""Row 21: records that wait in a handler of `logging` are the parent's, and so is its connection.

A ``MemoryHandler`` holds records back, and both processes would write them. A ``SocketHandler``,
and a ``SysLogHandler`` over TCP, has one connection, into which both would write. In the child the
records are gone, and the handler connects anew at its next record; the parent's socket is kept, and
silent. Datagrams stay as they are: a record is one message, whoever sends it.
"""

from __future__ import annotations

import sys

from .._fork_event import ForkEvent
from .._fork_event._step import NOTHING, Step
from .._fork_event._typing import Any, Iterator

_MODULE = "logging.handlers"
_parents: list[object] = []  # kept: records hold objects of the program's


class LogHandlersStep(Step):
    name = "log handlers"
    modules = (_MODULE,)

    def note(self, fork: ForkEvent) -> Any:
        return None if any(True for _ in waiting_handlers()) else NOTHING

    def reset(self, fork: ForkEvent, note: None) -> bool:
        found = list(waiting_handlers())
        for handler, attribute in found:
            had = getattr(handler, attribute)
            _parents.append(had)
            if attribute == "buffer":
                handler.buffer = []
            elif attribute == "sock" or hasattr(type(handler), "createSocket"):
                setattr(handler, attribute, None)  # it connects by itself
            else:  # up to 3.10 a SysLogHandler has a socket from the beginning
                handler.socket = _Later(handler, had)
        return bool(found)


def waiting_handlers() -> Iterator[tuple[Any, str]]:
    """Yield handlers with something of this process in an attribute, and its name. Reads only."""
    module: Any = sys.modules.get(_MODULE)
    if module is None:
        return
    for reference in list(getattr(sys.modules["logging"], "_handlerList", ())):
        handler = reference()
        state = getattr(handler, "__dict__", {})
        if isinstance(handler, module.BufferingHandler):
            if type(state.get("buffer")) is list and state["buffer"]:
                yield handler, "buffer"
        elif isinstance(handler, (module.SocketHandler, module.SysLogHandler)):
            attribute = "sock" if isinstance(handler, module.SocketHandler) else "socket"
            # A DatagramHandler's socket is a datagram one.
            kind = getattr(state.get(attribute), "type", None)
            if kind == sys.modules["socket"].SOCK_STREAM:
                yield handler, attribute


class _Later:
    """Stands in for the socket of a ``SysLogHandler``, up to 3.10, until its next record."""

    def __init__(self, handler: Any, had: Any) -> None:
        self._handler = handler
        self._had = had

    def sendall(self, data: bytes) -> None:
        # As SysLogHandler.__init__() does it.
        handler = self._handler
        if handler.unixsocket:
            handler._connect_unixsocket(handler.address)
        else:
            sock = sys.modules["socket"].socket(self._had.family, handler.socktype)
            sock.connect(handler.address)
            handler.socket = sock
        handler.socket.sendall(data)

    send = sendall

    def close(self) -> None:
        """Nothing is open yet."""
