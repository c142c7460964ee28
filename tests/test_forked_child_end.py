"""The end of the child of `forked()`: its own work is complete, its parent's is not touched.

The child leaves things open, as a program does that ends soon. At the end of a program they are
completed: buffers flushed, archives closed, temporary files deleted, ``finally`` and ``__del__()``
run. The child of `forked()` ends by ``os._exit()``, which does nothing of that.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from harness import PYPY, Forker, run

FREE_THREADED = "t" in sys.abiflags
# Where the collector has no generations, or the program has frozen them, only files are found.
FILES_ONLY = PYPY or FREE_THREADED


class Folder:
    """Where the child leaves its files, and the parent looks for them."""

    def __init__(self) -> None:
        import tempfile

        # No TemporaryDirectory: the end of a plain child would delete it.
        self.path = Path(tempfile.mkdtemp())

    def __truediv__(self, name: str) -> str:
        return str(self.path / name)


class Noted:
    """An object that writes a line when it ends."""

    def __init__(self, path: str, line: str, holds: Any = None) -> None:
        self.path, self.line, self.holds = path, line, holds

    def __del__(self) -> None:
        with open(self.path, "a") as file:
            file.write(self.line + "\n")


def noting(path: str) -> Iterator[int]:
    try:
        yield 1
    finally:
        with open(path, "w") as file:
            file.write("done")


def how_it_ends(fork: Forker) -> str:
    """Let the control end by ``os._exit()``: a plain fork's end is a program's."""
    return "_exit" if fork.style == "raw" else "exit"


def text_of(path: str) -> str:
    return Path(path).read_text() if os.path.exists(path) else "no file"


def leave_files(kept: list[Any], folder: Folder) -> None:
    """Leave open what is found on every interpreter: files."""
    import gzip

    def keep(file: Any, data: Any) -> Any:
        kept.append(file)
        file.write(data)
        return file

    keep(open(folder / "text", "w"), "text")
    keep(open(folder / "binary", "wb"), b"binary")
    keep(open(folder / "update", "w+b"), b"update")
    keep(gzip.open(folder / "gzip", "wt"), "gzip")
    keep(open(folder / "grown old", "w"), "grown old")
    for _ in range(3):
        gc.collect()
    keep(open(folder / "young", "w"), "young")


def lost_files(folder: Folder) -> set[str]:
    import gzip

    lost = set()
    for name in ("text", "binary", "update", "grown old", "young"):
        if text_of(folder / name) != name:
            lost.add(name)
    try:
        with gzip.open(folder / "gzip", "rt") as file:
            data = file.read()
    except (EOFError, OSError):
        data = "no file"
    return lost if data == "gzip" else {*lost, "gzip"}


def leave_more(kept: list[Any], folder: Folder, pipe: int, reopened: Any) -> None:
    """Leave open what takes the generations of the collector to be found."""
    import dbm.dumb
    import shelve
    import tempfile
    import zipfile

    kept.append(os.fdopen(pipe, "w"))  # a new file, over a descriptor of the parent's
    kept[-1].write("pipe")
    reopened.close()
    kept.append(open(folder / "reopened", "a"))  # another one, and the same descriptor and path
    kept[-1].write("reopened")
    archive = zipfile.ZipFile(folder / "zip", "w")
    archive.writestr("member", "zip")
    kept.append(archive)
    database: Any = dbm.dumb.open(folder / "shelf")
    shelf: shelve.Shelf[list[str]] = shelve.Shelf(database, writeback=True)
    shelf["key"] = ["written at once"]
    shelf["key"].append("and at its end")
    kept.append(shelf)
    generator = noting(folder / "generator")
    next(generator)
    kept.append(generator)
    first = Noted(folder / "order", "held, made first")
    kept.append(Noted(folder / "order", "holder, made second", holds=first))
    holder = Noted(folder / "order", "holder, made first")
    holder.holds = Noted(folder / "order", "held, made second")
    kept.append(holder)
    temporary = tempfile.NamedTemporaryFile(dir=folder.path, prefix="temporary")
    kept.append(temporary)


def lost_more(folder: Folder, pipe: int) -> set[str]:
    import dbm.dumb
    import shelve
    import zipfile

    lost = set()
    if os.read(pipe, 100) != b"pipe":
        lost.add("pipe")
    if text_of(folder / "reopened") != "reopened":
        lost.add("reopened")
    try:
        zipfile.ZipFile(folder / "zip").read("member")
    except (zipfile.BadZipFile, OSError):
        lost.add("zip")
    database: Any = dbm.dumb.open(folder / "shelf", "r")
    if len(shelve.Shelf(database)["key"]) < 2:
        lost.add("shelf")
    if text_of(folder / "generator") != "done":
        lost.add("generator")
    ended = text_of(folder / "order").splitlines()
    for number in ("first", "second"):
        other = {"first": "second", "second": "first"}[number]
        holder, held = f"holder, made {number}", f"held, made {other}"
        if not (holder in ended and held in ended and ended.index(holder) < ended.index(held)):
            lost.add(f"order ({holder})")
    if any(path.name.startswith("temporary") for path in folder.path.iterdir()):
        lost.add("temporary file left behind")
    return lost


def files(fork: Forker) -> None:
    folder = Folder()
    kept: list[Any] = []
    fork.run(leave_files, kept, folder, end=how_it_ends(fork))
    lost = lost_files(folder)
    assert not lost, f"lost: {sorted(lost)}"


def frozen(fork: Forker) -> None:
    gc.freeze()
    count = gc.get_freeze_count()
    files(fork)
    assert fork.run(gc.get_freeze_count) > count - 100, "the heap is no longer frozen"
    parents(fork)


def more(fork: Forker) -> None:
    folder = Folder()
    kept: list[Any] = []
    read, write = os.pipe()
    reopened = open(folder / "reopened", "a")
    fork.run(leave_more, kept, folder, write, reopened, end=how_it_ends(fork))
    os.close(write)
    lost = lost_more(folder, read)
    assert not lost, f"lost: {sorted(lost)}"


def logs(fork: Forker) -> None:
    import logging.handlers

    folder = Folder()

    def make(who: str) -> logging.Logger:
        """Return a logger whose record waits in memory."""
        target = logging.FileHandler(folder / who)
        logger = logging.getLogger(who)
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.handlers.MemoryHandler(100, target=target))
        logger.info("of the %s", who)
        return logger

    logger = make("parent")
    fork.run(make, "child", end=how_it_ends(fork))
    assert text_of(folder / "child") == "of the child\n", "lost: the child's record"
    assert text_of(folder / "parent") == "", "the child has written the parent's record"
    logger.handlers[0].flush()
    assert text_of(folder / "parent") == "of the parent\n"


def started(fork: Forker) -> None:
    """Each child leaves one: a thread at work, work in an executor, a process, a queue to write."""
    import multiprocessing
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    folder = Folder()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def work(name: str) -> None:
        time.sleep(0.3)
        Path(folder / name).write_text(name)

    starts = {
        "thread": lambda: threading.Thread(target=work, args=("thread",)).start(),
        "executor": lambda: ThreadPoolExecutor().submit(work, "executor"),
        "process": lambda: context.Process(target=work, args=("process",)).start(),
        "queue": lambda: queue.put("queue"),
    }
    lost = []
    for name, start in starts.items():
        fork.run(lambda start=start: start() and None, end=how_it_ends(fork))
        if name != "queue" and text_of(folder / name) != name:
            lost.append(name)
    try:
        queue.get(timeout=2)
    except Exception:
        lost.append("queue")
    assert not lost, f"lost: {lost}"


def parents(fork: Forker) -> None:
    folder = Folder()
    file = open(folder / "file", "w")
    file.write("of the parent\n")
    generator = noting(folder / "generator")
    next(generator)
    noted = Noted(folder / "del", "of the parent")

    kept: list[Any] = []

    def child() -> None:
        gc.collect()  # so that old and young ones are mixed
        kept.append(open(folder / "own", "w"))
        kept[-1].write("of the child")

    fork.run(child)
    assert fork.style != "forked" or text_of(folder / "own") == "of the child"
    for name in ("file", "generator", "del"):
        assert text_of(folder / name) in ("", "no file"), f"the child has ended the parent's {name}"
    file.close()
    assert text_of(folder / "file") == "of the parent\n"
    assert noted.line


def in_a_block_in_a_block(fork: Forker) -> None:
    import forksafe

    folder = Folder()
    with forksafe.forked() as outer:
        if outer.is_child:
            of_outer = open(folder / "outer", "w")
            of_outer.write("outer")
            gc.collect()
            with forksafe.forked() as inner:
                if inner.is_child:
                    of_inner = open(folder / "inner", "w")
                    of_inner.write("inner")
            assert text_of(folder / "inner") == "inner"
            assert text_of(folder / "outer") == ""
    assert text_of(folder / "outer") == "outer"


def failing(fork: Forker) -> None:
    folder = Folder()
    kept: list[Any] = []

    class Fails:
        def __del__(self) -> None:
            raise LookupError("in __del__")

    def leave() -> None:
        kept.append(Fails())
        kept.append(open("/dev/full", "w"))
        kept[-1].write("too much")
        kept.append(open(folder / "file", "w"))
        kept[-1].write("file")
        kept.append(Fails())

    fork.run(leave)
    assert text_of(folder / "file") == "file"


def without_room(fork: Forker) -> None:
    """An object with an end, and without room for a weak reference, grows old."""
    kept: list[Any] = []

    class Slotted:
        __slots__ = ()

        def __del__(self) -> None:
            pass

    def leave() -> None:
        kept.append(Slotted())
        gc.collect(1)

    fork.run(leave)


def test_an_object_that_cannot_be_noted_is_left_out() -> None:
    """And nothing is said of it."""
    outcome = run(without_room, "forked")
    assert (outcome.healthy, outcome.output) == (True, ""), outcome


def test_files_that_the_child_left_open_are_complete() -> None:
    """Text, binary data and compressed data; whether the collector has been there or not."""
    outcome = run(files, "forked")
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_they_are_lost_where_a_process_ends_by_exit_alone(style: str) -> None:
    """What forksafe does is needed: by itself ``os._exit()`` completes nothing."""
    outcome = run(files, style)
    lost = ["binary", "grown old", "gzip", "text", "update", "young"]
    assert outcome.shows(f"AssertionError: lost: {lost}"), outcome


@pytest.mark.skipif(FILES_ONLY, reason="the collector has no generations, so nothing is frozen")
def test_a_heap_that_is_frozen_stays_so() -> None:
    """The descriptors tell then whose a file is."""
    outcome = run(frozen, "forked")
    assert outcome.healthy, outcome


@pytest.mark.skipif(FILES_ONLY, reason="it takes a collector with generations to find them")
def test_whatever_does_something_at_its_end_has_done_it() -> None:
    """Archives, databases, generators, temporary files; who holds another comes first."""
    outcome = run(more, "forked")
    assert outcome.healthy, outcome


def test_nothing_of_that_where_a_process_ends_by_exit_alone() -> None:
    """All of it is lost."""
    outcome = run(more, "raw")
    assert outcome.shows("AssertionError: lost: ['generator'"), outcome
    for what in ("order", "pipe", "reopened", "shelf", "temporary file", "zip"):
        assert what in outcome.output.partition("AssertionError: lost: ")[2], outcome


def test_the_childs_handlers_of_logging_are_shut_down() -> None:
    """Their records are written; those of the parent's wait on."""
    outcome = run(logs, "forked")
    assert outcome.healthy, outcome


def test_handlers_of_logging_after_exit_alone() -> None:
    """The record of the child is lost."""
    outcome = run(logs, "raw")
    assert outcome.shows("lost: the child's record"), outcome


def test_what_the_child_has_started_is_waited_for() -> None:
    """Threads, work of executors, processes, and what is on its way into a queue."""
    outcome = run(started, "forked")
    assert outcome.healthy, outcome


def test_nobody_waits_for_it_where_a_process_ends_by_exit_alone() -> None:
    """Lost, or still at work when the parent goes on; it may be that the queue is written."""
    outcome = run(started, "raw")
    assert outcome.shows("AssertionError: lost: ['thread'"), outcome


@pytest.mark.parametrize("style", ["forked", "process"])
def test_what_the_parent_has_open_is_left_alone(style: str) -> None:
    """Its text is not written by the child, its generators and objects do not end there."""
    outcome = run(parents, style)
    assert outcome.healthy, outcome


@pytest.mark.skipif(PYPY, reason="PyPy ends nothing but files")
def test_the_end_of_a_plain_child_ends_what_the_parent_has() -> None:
    """What `forked()` leaves out is what happens otherwise."""
    outcome = run(parents, "raw")
    assert outcome.shows("the child has ended the parent's file"), outcome


def test_whose_own_it_is_in_a_child_of_a_child() -> None:
    """What is the child's own is its child's parent's."""
    outcome = run(in_a_block_in_a_block, "forked")
    assert outcome.healthy, outcome


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_what_fails_at_its_end_is_told_and_stops_nothing() -> None:
    """The rest is complete, and the exit code is that of the child's work."""
    outcome = run(failing, "forked")
    assert outcome.healthy, outcome
    assert FILES_ONLY or outcome.output.count("LookupError: in __del__") == 2, outcome
    assert "No space left on device" in outcome.output, outcome
