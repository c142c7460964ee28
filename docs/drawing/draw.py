"""Draw the pictures of the pages: `python docs/drawing/draw.py`.

What is measured is drawn by what measures it: tests/matrix/run.py and tests/benchmarks/run.py.
"""

from __future__ import annotations

from pathlib import Path

from svg import Sheet, draw_both, write

PICTURES_DIR = Path(__file__).resolve().parents[1] / "pictures"
WIDTH = 520


def fork(sheet: Sheet) -> None:
    """A process with three threads, and what its two kinds of children have of it."""
    sheet.text(20, 32, "Your process", bold=True, size=16)
    sheet.box(14, 44, 492, 128)
    for number, (name, colour) in enumerate(
        (("main thread", "blue"), ("logging thread", "violet"), ("pool's thread", "violet"))
    ):
        x = 30 + number * 156
        sheet.box(x, 58, 144, 30, "faint", "none", radius=15)
        sheet.dot(x + 17, 73, 5, colour)
        sheet.text(x + 30, 78, name)
    for y, what in (
        (112, "a lock, held by the logging thread"),
        (134, "a connection to a manager process"),
        (156, "daemon processes, temporary files, unwritten text"),
    ):
        sheet.dot(38, y - 5, 3, "soft")
        sheet.text(52, y, what, "soft")

    columns = (
        (
            14,
            "os.fork()",
            "bad",
            (
                ("the main thread alone", None),
                ("the lock: held for ever", False),
                ("the pool: never answers", False),
                ("the same connection", False),
                ("text: written twice", False),
                ("its exit kills the daemons", False),
            ),
        ),
        (
            266,
            "safe_fork()",
            "good",
            (
                ("the main thread alone", None),
                ("the lock: free", True),
                ("the pool: new threads", True),
                ("a connection of its own", True),
                ("text: written once", True),
                ("the daemons live on", True),
            ),
        ),
    )
    for x, title, colour, lines in columns:
        sheet.arrow(x + 40, 176, x + 40, 214, colour)
        sheet.text(x + 56, 200, title, colour, bold=True, mono=True, size=15)
        sheet.box(x, 218, 240, 168, f"{colour}-ground", colour)
        for number, (what, good) in enumerate(lines):
            y = 242 + number * 25
            sheet.mark(x + 18, y - 5, good)
            sheet.text(x + 34, y, what)


def fork_copies(sheet: Sheet) -> None:
    """What the child has of each thing: a copy, a share, nothing, or a new one."""
    groups = (
        (
            "copied",
            "blue",
            "each has its own from here on",
            ("memory: objects, modules", "locks, in the state they are in"),
            ("signal handlers and mask", "text that waits in buffers"),
            ("seeds of generators", "exit handlers"),
        ),
        (
            "shared",
            "note",
            "one thing, two owners",
            ("sockets, pipes, TLS sessions", "file offsets, flock()"),
            ("shared memory, semaphores", "temporary files on disk"),
            ("epoll, wakeup pipes", "listening sockets"),
        ),
        (
            "gone",
            "bad",
            "the parent's alone",
            ("all other threads", "what they were about to do"),
            ("timers and alarms", "record locks of lockf()"),
            ("child processes: not its own", "asynchronous I/O"),
        ),
    )
    y = 16
    for name, colour, meaning, *rows in groups:
        sheet.box(14, y, 492, 112, f"{colour}-ground", colour)
        sheet.text(28, y + 24, name, colour, bold=True, size=16)
        sheet.text(104, y + 24, meaning, "soft")
        for number, row in enumerate(rows):
            for x, what in zip((28, 268), row):
                sheet.dot(x + 4, y + 44 + number * 22, 3, colour)
                sheet.text(x + 16, y + 49 + number * 22, what)
        y += 122
    sheet.box(14, y, 492, 90, "good-ground", "good")
    sheet.text(28, y + 24, "renewed by forksafe", "good", bold=True, size=16)
    rows = (
        ("locks of threads that are gone", "queues, executors, loops"),
        ("streams and log files", "managers' connections"),
    )
    for number, row in enumerate(rows):
        for x, what in zip((28, 268), row):
            sheet.mark(x + 6, y + 44 + number * 22, True)
            sheet.text(x + 20, y + 49 + number * 22, what)


def order(sheet: Sheet) -> None:
    """The order of events, with the signal mask beside it."""
    events: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
        ("parent", "before the fork", "card", ("stdout, stderr and log files flushed",)),
        (
            "parent",
            "signals blocked",
            "note-ground",
            ("what only the parent can see is noted:", "the stacks of its other threads, once"),
        ),
        ("", "fork()", "blue-ground", ("the kernel copies the process",)),
        (
            "child",
            "the steps",
            "note-ground",
            ("26 hazards, each where it is loaded;", "multiprocessing's own callbacks"),
        ),
        ("child", "the program's signal mask", "card", ("signals that waited arrive now",)),
        (
            "child",
            "your callbacks",
            "card",
            (
                "register_after_fork(), in their order:",
                "threads and processes started here are whole",
            ),
        ),
        ("child", "os.fork() returns 0", "good-ground", ("the first line of your code",)),
    )
    y = 16
    top = bottom = 0.0
    for number, (who, title, ground, lines) in enumerate(events):
        height = 34 + 20 * len(lines)
        sheet.box(84, y, 422, height, ground, "edge")
        sheet.text(98, y + 23, title, bold=True, size=15)
        for offset, line in enumerate(lines):
            sheet.text(98, y + 44 + offset * 20, line, "soft")
        sheet.text(20, y + 23, who, "soft")
        if ground == "note-ground" and not top:
            top = y
        if title == "the steps":
            bottom = y + height
        y += height
        if number < len(events) - 1:
            sheet.arrow(110, y, 110, y + 14)
            y += 14
    sheet.line(72, top, 72, bottom, "note", width=3)
    sheet.text(20, (top + bottom) / 2 - 4, "signals", "note")
    sheet.text(20, (top + bottom) / 2 + 14, "wait", "note")


def held_locks(sheet: Sheet) -> None:
    """A thread's stack, one frame of which stands inside the body of a with statement."""
    sheet.text(20, 30, "Another thread, at the moment of the fork", bold=True, size=16)
    frames = (
        ("run()", ("while True:", "    cache.refresh()"), None),
        (
            "Cache.refresh()",
            ("with self.lock:", "    self.values = load()", "    self.age = 0"),
            1,
        ),
        ("load()", ("return socket.recv(4096)",), None),
    )
    y = 44
    for name, lines, inside in frames:
        height = 34 + 21 * len(lines)
        sheet.box(14, y, 492, height, "card", "edge")
        sheet.text(28, y + 22, name, "soft")
        for number, line in enumerate(lines):
            if number == inside:
                sheet.box(160, y + 28 + number * 21, 336, 22, "note-ground", "none", radius=3)
            sheet.text(168, y + 44 + number * 21, line, mono=True)
        if inside is not None:
            sheet.line(152, y + 50, 152, y + 30 + 21 * len(lines), "note", width=3)
            sheet.text(28, y + 44, "the body of", "note")
            sheet.text(28, y + 62, "the with", "note")
            sheet.text(28, y + 80, "statement", "note")
        y += height + 12
    rows = (
        ("1", "This frame stands inside the body of with self.lock."),
        ("2", "So its thread holds self.lock: nobody else can."),
        ("3", "In the child this thread does not exist."),
        ("4", "So nobody there will ever release it: make it afresh."),
    )
    y += 6
    for number, text in rows:
        sheet.dot(30, y + 8, 11, "good-ground", "good")
        sheet.text(30, y + 13, number, "good", anchor="middle", bold=True)
        sheet.text(50, y + 13, text)
        y += 28


PICTURES = {
    fork: ("What a child has under os.fork(), and with forksafe", 400),
    fork_copies: ("What a fork copies, shares and loses, and what forksafe renews", 486),
    order: ("The order of events at a fork", 562),
    held_locks: ("How a held lock is proven", 434),
}


def pictures() -> dict[str, str]:
    """Return all of them, as files."""
    drawn: dict[str, str] = {}
    for draw, (title, height) in PICTURES.items():
        drawn.update(draw_both(draw.__name__.replace("_", "-"), title, WIDTH, height, draw))
    return drawn


if __name__ == "__main__":
    write(PICTURES_DIR, pictures())
