"""Rows 14 and 20: what waits in a stream is written once, and the child can print, and log.

A fork copies the buffers, and both processes would flush their copy: so stdout and stderr are
flushed before the fork, as ``multiprocessing.popen_fork`` does. Not if nobody takes what they hold:
a plain fork does not wait for the reader of a full pipe either. And flushing is not all of it.
Another thread can be inside its next write at the fork: what it has put into the buffer is the
parent's to write, and the lock of the buffer, which it holds, is released by nobody in the child
(cpython gh-50970). The streams of ``logging``'s handlers are no different: CPython makes the lock
of each handler anew in the child, but not the one inside its stream.

So in the child such a stream starts afresh, in place: a handler keeps the stream that it was made
with. ``BufferedWriter.__init__()`` on a live object gives it an empty buffer and a new lock, and
leaves the file open. The TextIOWrapper keeps its settings. Its pending text is the parent's, so we
flush it while the buffer points at a sink, and then point the buffer back at the file.

Only the standard layers, by their exact types, are touched; any other object is the program's.
Where this very thread is inside a write to a standard stream (a signal handler forks there), the
stream stays as it is: the write goes on in the child, and releases the lock there.
"""

from __future__ import annotations

import io
import select
import sys

from .._fork_event._signals import in_handler
from .._fork_event._step import NOTHING, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .._fork_event import ForkEvent

    Buffer = io.BufferedWriter | io.BufferedRandom


class StreamsStep(Step):
    name = "std streams"

    def note(self, fork: ForkEvent) -> list[Any]:
        """Return the standard streams that the child must start afresh."""
        streams = list(fork.unflushed)
        if not fork.alone:
            streams += [s for s in _standard() if not any(s is other for other in fork.reentered)]
        return streams or ([] if not fork.alone else NOTHING)

    def reset(self, fork: ForkEvent, note: list[Any] | None) -> bool:
        streams = list(_standard()) if note is None else note
        if not fork.alone:
            streams += _of_handlers()
        done = False
        for stream in streams:
            done = _start_afresh(stream) or done
        return done


def flush(fork: ForkEvent) -> None:
    """Flush stdout and stderr, in the parent, before signals are blocked.

    Where this is the only thread, also the streams of the handlers of `logging`. Beside others the
    lock of such a stream may be held; then the child starts it afresh in any case.
    """
    for stream in [*_standard(), *_of_handlers()] if fork.alone else _standard():
        try:
            if _takes(stream):
                stream.flush()
            elif in_handler(sys._getframe()):
                fork.reentered += (stream,)  # it may be inside this stream's write, which waits
            else:
                fork.unflushed += (stream,)
        except RuntimeError:
            # "reentrant call": a signal handler forks inside this very stream's write.
            fork.reentered += (stream,)
        except Exception:  # closed, a full disk: the next write will tell
            fork.unflushed += (stream,)


# In C: gevent puts functions in its place that let other greenlets run.
_poll: Any = select.poll if type(getattr(select, "poll", None)) is type(len) else None


def _takes(stream: Any) -> bool:
    """Tell whether the file below a stream takes a write now; a regular file always does."""
    if _poll is None or layers(stream) is None:
        return True
    poll = _poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return bool(poll.poll(0))


def layers(stream: Any) -> tuple[io.TextIOWrapper | None, Buffer] | None:
    """Return the text and the binary layer of a standard stream that is open, else None."""
    text = stream if type(stream) is io.TextIOWrapper else None
    try:
        buffer: Any = stream if text is None else text.buffer
        if type(buffer) not in (io.BufferedWriter, io.BufferedRandom):
            return None
        raw: Any = buffer.raw
        if type(raw) is not io.FileIO or raw.closed:
            return None
    except ValueError:  # detached
        return None
    return text, buffer


def _standard() -> Iterable[Any]:
    out, error = getattr(sys, "stdout", None), getattr(sys, "stderr", None)
    if out is getattr(sys, "__stdout__", None) and error is getattr(sys, "__stderr__", None):
        return [stream for stream in (out, error) if stream is not None]
    streams: dict[int, Any] = {}  # a stream's __eq__() and __hash__() may be the program's
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        stream = getattr(sys, name, None)
        if stream is not None:
            streams[id(stream)] = stream
    return streams.values()


def _of_handlers() -> list[Any]:
    """Return the streams of all handlers that `logging` knows, but for the standard ones."""
    known = {id(stream) for stream in _standard()}
    found = []
    for reference in list(getattr(sys.modules.get("logging"), "_handlerList", ())):
        handler = reference() if callable(reference) else None
        stream = getattr(handler, "__dict__", {}).get("stream")
        if stream is not None and id(stream) not in known:
            found.append(stream)
    return found


class _Sink(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def tell(self) -> int:
        return 0

    def write(self, data: Any) -> int:
        return len(data)


_sink = _Sink()


def _start_afresh(stream: Any) -> bool:
    found = layers(stream)
    if found is None:
        return False
    text, buffer = found
    init: Any = type(buffer).__init__
    size, raw = _size(buffer), buffer.raw
    init(buffer, _sink, 512)
    try:
        if text is not None:
            text.flush()
    finally:
        init(buffer, raw, size)
    return True


def _size(buffer: Buffer) -> int:
    # The size is told by nothing but the memory it takes, and on PyPy by nothing at all.
    try:
        size = buffer.__sizeof__() - type(buffer).__basicsize__
    except AttributeError:
        return io.DEFAULT_BUFFER_SIZE
    return size if size > 0 else io.DEFAULT_BUFFER_SIZE
