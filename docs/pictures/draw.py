"""Draw the pictures of the pages: `python docs/pictures/draw.py`.

What is measured is drawn by what measures it: tests/matrix/run.py and tests/benchmarks/run.py.
"""

from __future__ import annotations

from pathlib import Path

from svg import Sheet, write

HERE = Path(__file__).resolve().parent
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


PICTURES = {
    fork: ("What a child has under os.fork(), and with forksafe", 400),
}


def main() -> None:
    """Draw all of them."""
    for draw, (title, height) in PICTURES.items():
        write(HERE, draw.__name__.replace("_", "-"), title, WIDTH, height, draw)


if __name__ == "__main__":
    main()
