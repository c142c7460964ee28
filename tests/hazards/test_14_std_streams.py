"""Row 14: what is printed around a fork is written once, and the child can print.

The programs write to a file of their own, made stdout by its descriptor, so that the streams are
the ones the interpreter made.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

import pytest
from harness import READS_STACKS, Forker, run, run_plain

FORKS = 20

# Without any fork, threads that print while another flushes now and then lose lines, and write
# freed memory in their place, with other lines in it (cpython gh-119506).
TEXT_LAYER_LOSES = sys.version_info < (3, 13)


def _to_file(*descriptors: int) -> str:
    """Make a new file what stdout (or other descriptors) are; return its path."""
    import os
    import tempfile

    fd, path = tempfile.mkstemp()
    for descriptor in descriptors:
        os.dup2(fd, descriptor)
    os.close(fd)
    os.set_blocking(descriptors[0], True)
    import fcntl

    # As two processes write by one offset: each at the end.
    flags = fcntl.fcntl(descriptors[0], fcntl.F_GETFL)
    fcntl.fcntl(descriptors[0], fcntl.F_SETFL, flags | os.O_APPEND)
    return path


def _content(path: str) -> str:
    import os

    with open(path, errors="replace") as file:
        text = file.read()
    os.unlink(path)
    return text


def program_once(fork: Forker) -> None:
    """What was printed before the fork waits in the buffers."""
    import sys

    path = _to_file(1)
    sys.stdout.write("before ")
    sys.stdout.buffer.write(b"bytes ")
    child = fork(lambda: sys.stdout.write("child "))
    assert child.result() == 6
    assert child.join() == 0
    sys.stdout.write("after ")
    sys.stdout.flush()
    text = _content(path)
    assert sorted(text.split()) == ["after", "before", "bytes", "child"], text


def program_writing_threads(fork: Forker) -> None:
    """Two threads print without pause, at every one of many forks."""
    import logging
    import os
    import re
    import sys
    import threading

    complain = os.dup(2)
    path = _to_file(1, 2)
    logger = logging.getLogger("program")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.propagate = False
    stop = threading.Event()
    printed = [0, 0]

    def write(number: int) -> None:
        while not stop.is_set():
            print(f"<t{number} {printed[number]}>" + "." * 500)
            printed[number] += 1

    def in_child(number: int) -> None:
        print(f"<child {number} prints>")
        sys.stdout.flush()
        logger.warning(f"<child {number} logs>")
        print(f"<child {number} complains>", file=sys.stderr)
        sys.stderr.flush()  # PyPy would keep it
        sys.stdout.flush()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(FORKS):
            child = fork(in_child, number, end="_exit")
            child.result(8)
            assert child.join() == 0
    except BaseException as exc:
        os.write(complain, repr(exc).encode())
        os._exit(1)  # the threads do not end by themselves
    stop.set()
    for thread in threads:
        thread.join()
    sys.stdout.flush()
    os.dup2(complain, 2)
    text = _content(path)
    expected = [
        f"<child {number} {what}>"
        for number in range(FORKS)
        for what in ("prints", "logs", "complains")
    ]
    found = re.findall(r"<child \d+ \w+>", text)
    assert sorted(found) == sorted(expected), _difference(expected, found)
    if TEXT_LAYER_LOSES:
        return
    # A child's write can fall into the middle of a line of the parent's.
    rest = re.sub(r"<child \d+ \w+>\n", "", text)
    for thread_number in range(2):
        numbers = [int(n) for n in re.findall(rf"<t{thread_number} (\d+)>", rest)]
        wanted = list(range(printed[thread_number]))
        # Sorted: a flush by another thread can overtake this one's.
        assert sorted(numbers) == wanted, _difference(wanted, numbers)


def program_inside_a_write(fork: Forker) -> None:
    """A thread is in the middle of a write, with the lock of the buffer, at the very fork."""
    import os
    import sys
    import tempfile
    import threading
    import time

    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    begin, end = threading.Event(), threading.Event()
    # These two flush when this program's hook has run, and wait there for the thread.
    flushed_later = fork.style in ("hook", "process")

    def fill() -> None:
        begin.wait()
        sys.stdout.buffer.write(b"." * 1_000_000)  # more than a pipe takes
        sys.stdout.buffer.flush()

    def drain() -> None:
        end.wait()
        left = 1_000_000
        while left:
            left -= len(os.read(read, 65536))

    def before() -> None:
        begin.set()
        while _writable(1):
            time.sleep(0.001)
        if flushed_later:
            end.set()

    def in_child() -> str:
        with tempfile.TemporaryFile("w+") as file:
            os.dup2(file.fileno(), 1)
            print("child")
            sys.stdout.flush()
            file.seek(0)
            return file.read()

    threads = [threading.Thread(target=target) for target in (fill, drain)]
    for thread in threads:
        thread.start()
    os.register_at_fork(before=before)
    child = fork(in_child, end="_exit")
    try:
        assert child.result() == "child\n"
    finally:
        end.set()
    assert child.join() == 0
    for thread in threads:
        thread.join()


def _writable(fd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _difference(expected: list[Any], found: list[Any]) -> str:
    from collections import Counter

    lost, more = Counter(expected), Counter(found)
    return f"lost: {list((lost - more).items())[:9]}; too many: {list((more - lost).items())[:9]}"


def program_layers(fork: Forker) -> None:
    """The child has the very streams of the parent, as they were set up."""
    import os
    import sys
    import threading

    path = _to_file(1)
    out: Any = sys.stdout
    err: Any = sys.stderr
    out.reconfigure(encoding="utf-16-le", errors="backslashreplace", newline="\r\n")
    out.reconfigure(line_buffering=True)
    out.write("one\ntwo")
    read, write = os.pipe()
    threading.Thread(target=os.read, args=(read, 1)).start()  # it may be inside of any C code

    def state() -> list[object]:
        assert (out, err) == (sys.stdout, sys.stderr)
        found: list[object] = [id(o) for o in (out, out.buffer, out.buffer.raw, err, err.buffer)]
        for stream in (out, err):
            found += [
                stream.encoding,
                stream.errors,
                stream.line_buffering,
                stream.write_through,
            ]
            found += [
                stream.name,
                stream.buffer.__sizeof__() if hasattr(out, "__sizeof__") else 0,
            ]
        return found

    def in_child() -> list[object]:
        print(" \u20ac \ud800")
        if fork.style != "process-plain":
            import forksafe

            assert (forksafe.last_reset() or {})["std streams"] == "done"
        return state()

    try:
        before = state()
        assert fork.run(in_child, end="_exit") == before
        assert state() == before
    finally:
        os.write(write, b"x")
    with open(path, encoding="utf-16-le", newline="") as file:
        text = file.read()
    assert text == "one\r\ntwo \u20ac \\ud800\r\n", repr(text)


def program_alone(fork: Forker) -> None:
    """Without another thread the flush does all, and the streams' pages stay shared."""
    import forksafe

    assert _of_both(fork, lambda: (forksafe.last_reset() or {})["std streams"]) == "not needed"


def program_beside_sleepers(fork: Forker) -> None:
    """The other threads have nothing to do, in a queue, an event, an executor."""
    import queue
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    threading.Thread(target=queue.Queue().get, daemon=True).start()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    executor = ThreadPoolExecutor()
    assert executor.submit(abs, -1).result() == 1
    time.sleep(0.2)
    assert _of_both(fork, lambda: "") == ""


def program_a_hook_behind(fork: Forker) -> None:
    """A hook that was registered before the import of forksafe runs between its hook and the fork.

    It could let threads run. Else, beside such that sleep, streams need not start afresh.
    """
    import os
    import threading

    def told() -> str:
        import forksafe

        return (forksafe.last_reset() or {})["std streams"]

    threading.Thread(target=threading.Event().wait, daemon=True).start()
    if fork.style == "safe_fork":  # which imports it now
        os.register_at_fork(before=int)
    assert _of_both(fork, told) == ("done" if fork.style == "safe_fork" else "not needed")


def _of_both(fork: Forker, then: Callable[[], str]) -> str:
    """Have parent and child print a line each; return what the child returns then."""
    import sys

    path = _to_file(1)
    print("parent")

    def in_child() -> str:
        print("child")
        sys.stdout.flush()
        return then()

    told: str = fork.run(in_child, end="_exit")
    assert _content(path) == "parent\nchild\n"
    return told


def program_full(fork: Forker) -> None:
    """What could not be flushed before the fork is still only the parent's to write."""
    import os
    import sys

    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    os.set_blocking(1, False)
    while True:
        try:
            os.write(1, b"." * 4096)
        except BlockingIOError:
            break
    sys.stdout.write("parent\n")

    def in_child() -> None:
        while os.read(read, 4096).count(b".") == 4096:
            if os.fstat(read).st_size == 0 and not _readable(read):
                break
        print("child")
        sys.stdout.flush()

    fork.run(in_child, end="_exit")
    sys.stdout.flush()
    os.close(1)
    with open(read) as file:
        assert file.read().strip(".") == "child\nparent\n"
    os._exit(0)


def _readable(fd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def program_other_kinds(fork: Forker) -> None:
    """A stream that is not of the standard kind is the program's own."""
    import io
    import os
    import sys
    import tempfile
    import threading

    go_on = threading.Event()
    other = threading.Thread(target=go_on.wait)
    other.start()

    class Subclass(io.TextIOWrapper):
        def flush(self) -> None:
            if not stuck:
                super().flush()

    class Bare:
        def write(self, text: str) -> int:
            return len(text)

    stuck = False
    with open(os.devnull, "w") as closed:
        pass
    detached = io.TextIOWrapper(io.BytesIO())
    detached.detach()
    memory = io.StringIO()
    memory.write("in memory")
    subclass = Subclass(io.BufferedWriter(io.FileIO(os.devnull, "w")))
    stuck = True
    over_memory = io.TextIOWrapper(io.BytesIO())
    over_memory.write("kept")
    usual = sys.stdout
    try:
        for stream in (None, closed, detached, memory, subclass, Bare(), over_memory):
            sys.stdout = stream

            def in_child(stream: object = stream) -> bool:
                if stream is memory:
                    assert memory.getvalue() == "in memory"
                if stream is over_memory:
                    assert over_memory.buffer.getvalue() == b"kept"
                return sys.stdout is stream

            assert fork.run(in_child, end="_exit"), stream
        with tempfile.SpooledTemporaryFile(mode="w+") as spooled:
            sys.stdout = spooled
            assert fork.run(lambda: True, end="_exit")
            assert not vars(spooled)["_rolled"], "it has become a file, which both processes share"
        del sys.stdout
        assert fork.run(lambda: not hasattr(sys, "stdout"), end="_exit")
    finally:
        sys.stdout = usual
        go_on.set()


def program_original_behind_a_replacement(fork: Forker) -> None:
    """The interpreter's own stream waits behind another one, as under a test runner."""
    import io
    import sys

    path = _to_file(1)
    sys.stdout.write("once ")
    sys.stdout = io.StringIO()
    assert fork.run(lambda: True)
    assert sys.__stdout__
    sys.__stdout__.flush()
    assert _content(path) == "once "


def program_fork_inside_a_write(fork: Forker) -> None:
    """A signal handler forks while its own thread is inside print(), which goes on in both."""
    import os
    import signal
    import sys
    import threading

    import forksafe

    os_fork = forksafe.safe_fork if fork.style == "safe_fork" else os.fork
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    size = 1 << 20
    parent = os.getpid()
    pids: list[int] = []
    forked = threading.Event()
    written = []

    def handler(number: int, frame: object) -> None:
        pids.append(os_fork())
        try:
            sys.stdout.flush()
        except RuntimeError:
            pass  # "reentrant call": the write holds the lock still, in the child too
        else:
            os._exit(1)
        forked.set()

    def drain() -> None:
        os.read(read, 1)  # the write has begun
        os.kill(parent, signal.SIGUSR1)
        forked.wait()
        while True:
            part = os.read(read, 65536)
            if not part:
                break
            written.append(len(part))

    signal.signal(signal.SIGUSR1, handler)
    reader = threading.Thread(target=drain)
    reader.start()
    print("x" * size)
    sys.stdout.flush()
    if pids == [0]:
        print("again")
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    os.close(1)
    reader.join()
    os._exit(0)


def healthy(program: Callable[..., None], style: str, **options: Any) -> None:
    outcome = run(program, style, **options)
    assert outcome.healthy, outcome


def test_buffered_text_is_written_once(style: str) -> None:
    """By the parent, at the fork."""
    healthy(program_once, style)


def test_buffered_text_is_written_twice_by_os_fork() -> None:
    """By both."""
    outcome = run(program_once, "raw")
    assert outcome.shows("AssertionError: bytes before child bytes before after"), outcome


def test_the_child_prints_although_threads_were_printing(style: str) -> None:
    """And nothing is lost or written twice: of the parent's, nor of any child's."""
    healthy(program_writing_threads, style)


def test_the_child_prints_although_a_thread_is_inside_a_write(style: str) -> None:
    """Nothing of the thread's text is the child's to write."""
    healthy(program_inside_a_write, style)


@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_printing_breaks_elsewhere(style: str) -> None:
    """The child waits for the lock of the thread that is gone."""
    outcome = run_plain(program_inside_a_write, style)
    assert outcome.shows("hung"), outcome


def test_the_streams_stay_what_they_are(style: str) -> None:
    """The same objects, with the same encoding, error handler, newline and buffering."""
    healthy(program_layers, style)


def test_alone_there_is_nothing_to_do(style: str) -> None:
    """But the flush."""
    healthy(program_alone, style)


def test_beside_threads_that_sleep(style: str) -> None:
    """In a queue, in an event, in an executor."""
    healthy(program_beside_sleepers, style)


@pytest.mark.skipif(not READS_STACKS, reason="that threads sleep is read off their stacks")
@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_a_hook_that_comes_between(style: str) -> None:
    """It may let a thread run that has slept, and that then is in a write."""
    healthy(program_a_hook_behind, style)


def program_a_lock_of_its_own(fork: Forker) -> None:
    """A signal handler forks inside of write(), whose lock flush() would wait for."""
    import signal
    import sys
    import threading

    usual = sys.stdout

    class Tee:
        lock = threading.Lock()

        def write(self, text: str) -> int:
            with self.lock:
                signal.raise_signal(signal.SIGUSR1)
                return len(text)

        def flush(self) -> None:
            with self.lock:
                usual.flush()

    signal.signal(signal.SIGUSR1, lambda *_: fork(lambda: None, end="_exit").join())
    tee: Any = Tee()
    sys.stdout = tee
    print("text")
    sys.stdout = usual


@pytest.mark.parametrize("style", ["raw", "safe_fork", "hook"])
def test_a_stream_with_a_lock_of_its_own(style: str) -> None:
    """The fork does not wait for it."""
    healthy(program_a_lock_of_its_own, style)


def test_streams_of_other_kinds_are_left_alone(style: str) -> None:
    """None, closed, detached, in memory, of a subclass, of the program's own making, missing."""
    healthy(program_other_kinds, style)


def test_the_original_behind_a_replacement(style: str) -> None:
    """``sys.__stdout__`` is flushed too."""
    healthy(program_original_behind_a_replacement, style)


def test_what_cannot_be_flushed(style: str) -> None:
    """A full pipe: the parent's text is not written by the child as well."""
    if style == "process":
        pytest.skip("Process flushes by itself first, and raises")
    healthy(program_full, style)


@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_a_fork_inside_a_write(style: str) -> None:
    """The forking thread holds the lock itself; the stream is left as it is."""
    healthy(program_fork_inside_a_write, style)
