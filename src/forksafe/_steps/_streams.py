"""Row 14: text that waits in stdout and stderr is written once, and the child can print.

A fork copies the buffers, and both processes would flush their copy: so they are flushed before the
fork, as ``multiprocessing.popen_fork`` does. That is not all of it. Another thread can be inside
its next write at the fork: what it has put into the buffers is the parent's to write, and the lock
of the buffer, which it holds, is released by nobody in the child (cpython gh-50970).

So in the child the streams start afresh, in place: a ``logging`` handler keeps the stream that it
was made with. ``BufferedWriter.__init__()`` on a live object gives it an empty buffer and a new
lock, and leaves the file open. The text layer above keeps what it is (encoding, newline, ...); what
it holds back, it is made to write while the buffer stands over a sink.

Only the standard layers, by their exact types, are touched. Any other object is the program's. And
where no other thread was there, the flush has done all, and the pages of the streams stay shared.
"""

from __future__ import annotations

import io
import sys

from .._fork_event._step import NOTHING, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .._fork_event import Forking


class StdStreamsStep(Step):
    name = "std streams"

    def note(self, fork: Forking) -> list[Any]:
        """Flush; return the streams that the child must start afresh nevertheless."""
        streams = []
        for stream in _streams():
            try:
                stream.flush()
                clean = fork.alone
            except RuntimeError:
                # "reentrant call": a signal handler forks inside this very stream's write, which
                # goes on in the child, and releases the lock there.
                clean = True
            except Exception:  # closed, a full disk, a full pipe: the next write will tell
                clean = False
            if not clean:
                streams.append(stream)
        return streams or NOTHING

    def reset(self, fork: Forking, note: list[Any] | None) -> bool:
        done = False
        for stream in _streams() if note is None else note:
            done = _start_afresh(stream) or done
        return done


def layers(stream: Any) -> tuple[io.TextIOWrapper, io.BufferedWriter, io.FileIO] | None:
    """Return the three layers of a standard text stream that is open, None for any other."""
    if type(stream) is not io.TextIOWrapper:
        return None
    try:
        buffer = stream.buffer
        if type(buffer) is not io.BufferedWriter:
            return None
        raw = buffer.raw
        if type(raw) is not io.FileIO or raw.closed:
            return None
    except ValueError:  # detached
        return None
    return stream, buffer, raw


def _streams() -> Iterable[Any]:
    try:
        if sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__:
            return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    except AttributeError:
        pass  # the program has deleted it
    streams: dict[int, Any] = {}  # a stream's __eq__() and __hash__() may be the program's
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        stream = getattr(sys, name, None)
        if stream is not None:
            streams[id(stream)] = stream
    return streams.values()


class _Sink(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return 0

    def write(self, data: Any) -> int:
        return len(data)


_sink = _Sink()


def _start_afresh(stream: Any) -> bool:
    found = layers(stream)
    if found is None:
        return False
    text, buffer, raw = found
    size = _size(buffer)
    init = io.BufferedWriter.__init__
    init(buffer, _sink, 512)
    try:
        text.flush()
    finally:
        init(buffer, raw, size)
    return True


def _size(buffer: io.BufferedWriter) -> int:
    # The size is told by nothing but the memory it takes, and on PyPy by nothing at all.
    try:
        size = buffer.__sizeof__() - type(buffer).__basicsize__
    except AttributeError:
        return io.DEFAULT_BUFFER_SIZE
    return size if size > 0 else io.DEFAULT_BUFFER_SIZE
