"""Rows 14, 20 and 21: what waits in a stream or a handler of `logging` is written once.

stdout, stderr and the streams of ``logging``'s handlers are flushed before the fork, where that
need not wait; ``multiprocessing.popen_fork`` flushes the first two. Beside threads that do not just
sleep the streams start afresh in the child, in place: nobody there releases the lock of a buffer
(cpython gh-50970). A write goes on if this very thread is inside of it (a signal handler forks).

A ``MemoryHandler`` is empty in the child. A ``SocketHandler``, and a ``SysLogHandler`` over TCP,
connects anew at its next record. Datagrams stay: a record is one message, whoever sends it.
"""

from __future__ import annotations

import _io as io  # since 3.15 `io` itself takes time to load
import select
import sys

from .._fork_event import KEPT, NOTHING, ForkEvent, Step
from .._fork_event._signals import in_handler
from .._fork_event._typing import Any, Iterator

_HANDLERS = "logging.handlers"
_NAMES = ("stdout", "stderr", "__stdout__", "__stderr__")

# Only the one in C: gevent replaces it by a function that lets other greenlets run.
_poll: Any = select.poll if type(getattr(select, "poll", None)) is type(len) else None
_OUT = getattr(select, "POLLOUT", 0)


class StreamsStep(Step):
    name = "std streams"
    looks = (":beside_threads", ":unflushed")
    late = True

    def note(self, fork: ForkEvent) -> Any:
        if fork.stacks is not None and fork.stacks.asleep:
            fork.unflushed = ()
            flush(fork)  # what other threads have written since, if anything
        return _to_start_afresh(fork) or NOTHING

    def reset(self, fork: ForkEvent, note: list[Any] | None) -> bool:
        found = _to_start_afresh(fork) if note is None else note
        for init, text, buffer, raw, size in found:
            # __init__() on a live object gives it an empty buffer and a new lock. Text that waits
            # is the parent's, so we flush it while the buffer points at a sink.
            try:
                if text is not None:
                    init(buffer, io.BytesIO(), 512)
                    text.flush()
            finally:
                init(buffer, raw, size)
        return bool(found)


def _to_start_afresh(fork: ForkEvent) -> list[tuple[Any, Any, Any, Any, int]]:
    """Return, of each stream that the child starts afresh, the layers and the buffer's size."""
    reentered = [id(stream) for stream in fork.reentered]
    found = []
    idle = not fork.beside_threads or (fork.stacks is not None and fork.stacks.asleep)
    for stream in fork.unflushed if idle else streams():
        known = layers(stream)
        if known is not None and id(stream) not in reentered:
            text, buffer = known
            size = 0
            if hasattr(buffer, "__sizeof__"):  # not on PyPy; nothing else tells the buffer's size
                size = max(buffer.__sizeof__() - type(buffer).__basicsize__, 0)
            size = size or io.DEFAULT_BUFFER_SIZE
            found.append((type(buffer).__init__, text, buffer, buffer.raw, size))
    return found


def flush(fork: ForkEvent) -> None:
    """Flush the streams, in the parent, where that need not wait."""
    found = [s for s in streams() if type(s) is io.TextIOWrapper or _can_be_asked(s)]
    poll: Any = _poll() if _poll else None
    files: list[Any] = []
    for stream in found:
        try:
            file = stream.fileno()
            poll.register(file, _OUT)
        except Exception as exc:
            file = None  # there is none, or no poll()
            fork.is_of_handler(exc)
        files.append(file)
    try:
        taking = dict(poll.poll(0))  # a regular file always takes a write
    except Exception as exc:
        taking = dict.fromkeys(files)
        fork.is_of_handler(exc)
    for stream, file in zip(found, files):
        try:
            if file is None or file in taking:
                stream.flush()
            elif in_handler(sys._getframe()):
                fork.reentered += (stream,)  # it may have interrupted a write to it, which waits
            else:
                fork.unflushed += (stream,)
        except RuntimeError:  # "reentrant call": a signal handler forks inside this one's write
            fork.reentered += (stream,)
        except Exception as exc:  # closed, a full disk: the next write will tell
            fork.unflushed += (stream,)
            fork.is_of_handler(exc)


def _can_be_asked(stream: Any) -> bool:
    # That gives a SpooledTemporaryFile a file to share; and a handler may fork inside of write().
    spooled = getattr(stream, "_rolled", True) is False
    return not spooled and (layers(stream) is not None or not in_handler(sys._getframe()))


def layers(stream: Any) -> tuple[io.TextIOWrapper | None, Any] | None:
    """Return the text and the binary layer of a standard stream that is open, else None."""
    text = stream if type(stream) is io.TextIOWrapper else None
    try:
        buffer: Any = stream if text is None else text.buffer
        if type(buffer) not in (io.BufferedWriter, io.BufferedRandom):
            return None
        raw: Any = buffer.raw
        return (text, buffer) if type(raw) is io.FileIO and not raw.closed else None
    except ValueError:  # detached
        return None


def streams() -> list[Any]:
    """Return stdout and stderr, and those of all handlers that `logging` knows."""
    found = [getattr(sys, name, None) for name in _NAMES]
    found += [getattr(each, "__dict__", {}).get("stream") for each in _log_handlers()]
    # By id: a stream's __eq__() and __hash__() may be the program's.
    return list({id(each): each for each in found if each is not None}.values())


def _log_handlers() -> list[Any]:
    logging = sys.modules.get("logging")
    known = getattr(logging, "_handlerList", ())
    if len(known) == 1 and getattr(logging, "lastResort", 0) is getattr(
        logging, "_defaultLastResort", 1
    ):
        return []  # the usual case: just that one, which has no stream of its own
    return [reference() for reference in list(known) if callable(reference)]


class LogHandlersStep(Step):
    name = "log handlers"
    modules = (_HANDLERS,)
    looks = (f"{_HANDLERS}:__name__",)

    def note(self, fork: ForkEvent) -> Any:
        return None if any(True for _ in waiting_handlers()) else NOTHING

    def reset(self, fork: ForkEvent, note: None) -> bool:
        found = list(waiting_handlers())
        for handler, attribute in found:
            had = getattr(handler, attribute)
            KEPT.append(had)  # records hold objects of the program's
            if attribute == "buffer":
                handler.buffer = []
            elif attribute == "sock" or hasattr(type(handler), "createSocket"):
                setattr(handler, attribute, None)  # it connects by itself
            else:  # up to 3.10 a SysLogHandler has a socket from the beginning
                handler.socket = _connecting_later(handler, had)
        return bool(found)


def waiting_handlers() -> Iterator[tuple[Any, str]]:
    """Yield handlers that hold records or a stream socket, and the attribute. Reads only."""
    module: Any = sys.modules.get(_HANDLERS)
    if module is None:
        return
    kinds = (
        (module.BufferingHandler, "buffer"),
        (module.SocketHandler, "sock"),  # a DatagramHandler's is no stream
        (module.SysLogHandler, "socket"),
    )
    stream = sys.modules["socket"].SOCK_STREAM
    for handler in _log_handlers():
        for kind, attribute in kinds:
            had = vars(handler).get(attribute) if isinstance(handler, kind) else None
            if (type(had) is list and had) or getattr(had, "type", None) == stream:
                yield handler, attribute


def _connecting_later(handler: Any, had: Any) -> Any:
    """Return a stand-in for the socket of a ``SysLogHandler``, up to 3.10: a record connects."""

    def sendall(data: bytes) -> None:
        if handler.unixsocket:  # as SysLogHandler.__init__() does it
            handler._connect_unixsocket(handler.address)
        else:
            sock = sys.modules["socket"].socket(had.family, handler.socktype)
            sock.connect(handler.address)
            handler.socket = sock
        handler.socket.sendall(data)

    stand_in: Any = type(sys.implementation)  # types.SimpleNamespace
    return stand_in(sendall=sendall, send=sendall, close=lambda: None)
