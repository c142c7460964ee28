"""Row 20: the file of a `logging` handler, whose lock a vanished thread held.

CPython makes each handler's lock anew in the child. The one inside the buffer of its stream it does
not: a thread that was just writing holds it for ever, and the child's first log line waits for it.
"""

from __future__ import annotations

from typing import Any, Callable

import pytest
from harness import Forker, run, run_plain


def _busy_handler(fork: Forker, stream: Callable[[int], Any]) -> None:
    """A thread of the parent is inside a write to a full pipe, with the lock of the buffer."""
    import logging
    import os
    import tempfile
    import threading
    import time

    read, write = os.pipe()
    handler = logging.StreamHandler(stream(write))
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("row 20")
    log.propagate = False
    log.addHandler(handler)
    log.setLevel(logging.INFO)

    def write_a_lot() -> None:
        handler.stream.write("." * 300_000 if text else b"." * 300_000)

    text = not hasattr(handler.stream, "raw")
    if not text:
        handler.terminator = b"\n"  # type: ignore[assignment] # the stream is a binary one
        handler.format = lambda record: record.getMessage().encode()  # type: ignore[method-assign,assignment,return-value]
    threading.Thread(target=write_a_lot, daemon=True).start()
    os.read(read, 1)
    deadline = time.monotonic() + 0.2  # until the pipe is full again
    while time.monotonic() < deadline:
        time.sleep(0.01)

    def child() -> str:
        with tempfile.TemporaryFile("w+") as file:
            os.dup2(file.fileno(), write)
            os.write(2, b"the child logs\n")
            log.info("from the child")
            os.write(2, b"it has logged\n")
            file.seek(0)
            return file.read()

    assert fork.run(child, end="_exit") == "from the child\n"
    left = 300_000 - 1
    while left:
        left -= len(os.read(read, left))
    os._exit(0)


def text_stream(fork: Forker) -> None:
    _busy_handler(fork, lambda fd: open(fd, "w", closefd=False))


def binary_stream(fork: Forker) -> None:
    _busy_handler(fork, lambda fd: open(fd, "wb", closefd=False))


@pytest.mark.parametrize("program", [text_stream, binary_stream])
def test_the_child_logs(program: Callable[[Forker], None], style: str) -> None:
    """And nothing of what the thread was writing is the child's to write."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
@pytest.mark.parametrize("program", [text_stream, binary_stream])
def test_elsewhere_the_child_hangs(program: Callable[[Forker], None], style: str) -> None:
    """At its first log line, on the lock of the buffer."""
    outcome = run_plain(program, style)
    assert outcome.shows("hung"), outcome
    assert "the child logs" in outcome.stderr and "it has logged" not in outcome.stderr


def every_line_once(fork: Forker) -> None:
    """Threads log through handlers of every kind while children log, too."""
    import logging
    import logging.handlers
    import os
    import tempfile
    import threading

    directory = tempfile.mkdtemp()

    def path(name: str) -> str:
        return os.path.join(directory, name)

    handlers: list[logging.StreamHandler[Any]] = [
        logging.FileHandler(path("plain")),
        logging.FileHandler(path("delayed"), delay=True),
        logging.FileHandler(path("read and write"), mode="a+"),
        logging.handlers.RotatingFileHandler(path("rotating"), maxBytes=1 << 30, backupCount=1),
        logging.handlers.WatchedFileHandler(path("watched")),
    ]
    log = logging.getLogger("row 20")
    log.propagate = False
    log.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    stop = threading.Event()
    counts = [0] * 4

    def work(number: int) -> None:
        while not stop.is_set():
            log.info("thread %d line %d %s", number, counts[number], "x" * 200)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    forks = 25
    for number in range(forks):
        fork.run(log.info, "child %d", number, end="_exit")
    stop.set()
    for thread in threads:
        thread.join()
    expected = [f"child {number}" for number in range(forks)]
    for number, count in enumerate(counts):
        expected += [f"thread {number} line {line} " + "x" * 200 for line in range(count)]
    for handler in handlers:
        with open(handler.baseFilename) as file:  # type: ignore[attr-defined] # all have it
            lines = file.read().splitlines()
        assert sorted(lines) == sorted(expected), handler
    os._exit(0)


def test_every_line_is_written_once(style: str) -> None:
    """By whoever logged it, byte for byte: nothing lost, nothing twice, nothing in pieces."""
    outcome = run(every_line_once, style, timeout=60)
    assert outcome.healthy, outcome
