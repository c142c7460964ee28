"""Rows 14 and 20: what waits in a stream is written once, and the child can print, and log.

stdout and stderr are flushed before the fork, as ``multiprocessing.popen_fork`` does, unless nobody
takes what they hold: a plain fork waits for no reader either. What another thread was putting into
a buffer is the parent's to write, and the lock of that buffer is released by nobody in the child
(cpython gh-50970). The streams of ``logging``'s handlers are no different. So in the child such a
stream starts afresh, in place. Where this very thread is inside a write (a signal handler forks
there), the stream stays as it is: the write goes on, and releases the lock.
"""

from __future__ import annotations

import io
import select
import sys

from .._fork_event import ForkEvent
from .._fork_event._signals import in_handler
from .._fork_event._step import NOTHING, Step
from .._fork_event._typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    Buffer = io.BufferedWriter | io.BufferedRandom

# In C: gevent puts functions in its place that let other greenlets run.
_poll: Any = select.poll if type(getattr(select, "poll", None)) is type(len) else None


class StreamsStep(Step):
    name = "std streams"

    def note(self, fork: ForkEvent) -> Any:
        """Return the standard streams that the child must start afresh."""
        if fork.alone:
            return [*fork.unflushed] or NOTHING
        reentered = [id(stream) for stream in fork.reentered]
        return [stream for stream in _standard() if id(stream) not in reentered]

    def reset(self, fork: ForkEvent, note: list[Any] | None) -> bool:
        streams = _standard() if note is None else note
        if not fork.alone:
            streams += _of_handlers()
        found = [layers(stream) for stream in streams]
        for text, buffer in filter(None, found):
            _start_afresh(text, buffer)
        return any(found)


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
        return (text, buffer) if type(raw) is io.FileIO and not raw.closed else None
    except ValueError:  # detached
        return None


def _standard() -> list[Any]:
    get = vars(sys).get
    streams = get("stdout"), get("stderr"), get("__stdout__"), get("__stderr__")
    # By id: a stream's __eq__() and __hash__() may be the program's.
    return list({id(each): each for each in streams if each is not None}.values())


def _of_handlers() -> list[Any]:
    """Return the streams of all handlers that `logging` knows, but for the standard ones."""
    known = {id(None), *map(id, _standard())}
    found = []
    for reference in list(getattr(sys.modules.get("logging"), "_handlerList", ())):
        handler = reference() if callable(reference) else None
        stream = getattr(handler, "__dict__", {}).get("stream")
        if id(stream) not in known:
            found.append(stream)
    return found


def _start_afresh(text: io.TextIOWrapper | None, buffer: Buffer) -> None:
    # __init__() on a live object gives it an empty buffer and a new lock, and leaves the file open.
    # The TextIOWrapper keeps its settings. Its pending text is the parent's, so we flush it while
    # the buffer points at a sink, and then point the buffer back at the file.
    init: Any = type(buffer).__init__
    raw, size = buffer.raw, 0
    if hasattr(buffer, "__sizeof__"):  # not on PyPy; nothing else tells the buffer's size
        size = buffer.__sizeof__() - type(buffer).__basicsize__
    init(buffer, io.BytesIO(), 512)
    try:
        if text is not None:
            text.flush()
    finally:
        init(buffer, raw, size if size > 0 else io.DEFAULT_BUFFER_SIZE)
