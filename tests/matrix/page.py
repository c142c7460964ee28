"""Of the results that docs/matrix.json keeps, make docs/matrix.md and its picture."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from rows import OURS, ROWS, STYLES, Row

DOCS = Path(__file__).resolve().parents[2] / "docs"
DATA = DOCS / "matrix.json"
PAGE = DOCS / "matrix.md"
sys.path.append(str(DOCS / "drawing"))

ALT = (
    "A grid with a row for each hazard, and for each way to fork a group of squares, one for each "
    "Python. The table below says the same."
)
SIGNS = {"works": "✓", "breaks": "✗", "missing": "·"}

TEXT = """\
# The matrix: what breaks, and what does not

Each hazard has a program. It makes the state that a fork breaks, forks, and asserts that child and
parent are whole. Here it was run under six ways to fork on each Python there is: plain `os.fork()`;
`os.fork()` and the two lines in the child that are the [well-known
remedy](alternatives.md#two-lines-in-the-child); `multiprocessing.Process` with the fork start
method, these three without forksafe; and forksafe's `safe_fork()`, `install()` and `forked()`.

<picture>
  <source media="(prefers-color-scheme: dark)" srcset="pictures/matrix-dark.svg">
  <img src="pictures/matrix-light.svg" width="520" alt="{alt}">
</picture>

**✓** went well three times on each Python, **✗** broke on each; where versions differ, those that
break are named. **POSIX** is left as it is on purpose: a child inherits exit handlers and the call
stack, unless `forked()` keeps it from that. A dot was not run.

{table}

## Repeat it

```sh
python tests/matrix/run.py                     # on this Python
python tests/matrix/run.py --write PYTHON ...  # on these, and make this page anew
```

It needs a checkout and no package, shows its progress, and takes some ten minutes for each Python.
This page and the picture are made from `docs/matrix.json`; a test runs a part of it on every Python
of CI, and fails where the page says otherwise.

{stamps}

The programs are in `tests/hazards`, one file for each row; what each hazard is, in words, stands in
[What a fork breaks](hazards.md).
"""


def load() -> dict[str, Any]:
    """Return the results that were kept."""
    kept: dict[str, Any] = {"pythons": {}}
    if DATA.exists():
        kept = json.loads(DATA.read_text(encoding="utf-8"))
    return kept


def save(kept: dict[str, Any]) -> None:
    """Keep the results."""
    pythons = {name: kept["pythons"][name] for name in names(kept)}
    text = json.dumps({"pythons": pythons}, indent=1, ensure_ascii=False)
    DATA.write_text(text + "\n", encoding="utf-8")


def names(kept: dict[str, Any]) -> list[str]:
    """Return the names of the Pythons, oldest first, PyPy last."""

    def order(name: str) -> tuple[bool, list[int], str]:
        return name.startswith("PyPy"), [int(part) for part in re.findall(r"\d+", name)], name

    return sorted(kept["pythons"], key=order)


def ours(row: Row) -> list[tuple[str, str]]:
    """Return forksafe's ways to fork that mend a hazard."""
    return [(style, STYLES[style]) for style in OURS if style not in row.on_purpose]


def result(kept: dict[str, Any], name: str, row: Row, style: str) -> str:
    """Return what was kept of one program on one Python; ``missing`` where nothing was."""
    cells = kept["pythons"].get(name, {"rows": {}})["rows"].get(str(row.number), {})
    told: str = cells.get(style, {}).get("result", "missing")
    return told


def _cell(kept: dict[str, Any], row: Row, style: str) -> str:
    if style in row.on_purpose:
        return "POSIX"
    results = {name: result(kept, name, row, style) for name in names(kept)}
    ran = {name: result for name, result in results.items() if result != "missing"}
    if not ran:
        return "·"
    broke = [name for name, result in ran.items() if result == "breaks"]
    if not broke:
        return "✓"
    if len(broke) == len(ran):
        return "✗"
    return "✗ " + ", ".join(broke)


def _how(kept: dict[str, Any], row: Row) -> str:
    """Return how it breaks under a plain fork, on the newest Python that broke."""
    for name in reversed(names(kept)):
        told = kept["pythons"][name]["rows"].get(str(row.number), {}).get("raw", {})
        if told.get("result") == "breaks":
            said: str = told["how"]
            return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", said)
    return ""


def table(kept: dict[str, Any]) -> str:
    """Return the table of the page."""
    heads = ["#", "hazard", *(shown.rstrip("()") for shown in STYLES.values())]
    heads.append("what os.fork showed")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in ROWS:
        cells = [str(row.number), row.what, *(_cell(kept, row, style) for style in STYLES)]
        lines.append("| " + " | ".join([*cells, _how(kept, row)]) + " |")
    return "\n".join(lines)


def text(kept: dict[str, Any]) -> str:
    """Return the page."""
    stamps = ["| Python | version | run on |", "|---|---|---|"]
    for name in names(kept):
        one = kept["pythons"][name]
        stamps.append(f"| {name} | {one['version']} | {one['system']}, {one['date']} |")
    return TEXT.format(alt=ALT, table=table(kept), stamps="\n".join(stamps))


def write(kept: dict[str, Any]) -> list[Path]:
    """Write the page and the picture; return the files."""
    from svg import Sheet, draw_both
    from svg import write as write_pictures

    pythons = names(kept)
    left, top, height = 166, 74, 20
    group = (520 - left - 8) / len(STYLES)
    colours = {"works": "good", "breaks": "bad", "missing": "faint"}

    def draw(sheet: Sheet) -> None:
        for column, shown in enumerate(STYLES.values()):
            x = left + column * group
            mended = column >= len(STYLES) - len(OURS)
            sheet.text(
                x, top - 12, shown.rstrip("()"), "good" if mended else "ink", size=10.5, bold=True
            )
        sheet.text(14, 28, "What breaks at a fork", bold=True, size=16)
        legend = (("good", "works"), ("bad", "breaks"), ("edge", "as POSIX has it"))
        x = 232.0
        for colour, word in legend:
            sheet.box(x, 18, 10, 10, colour, "none", radius=2)
            sheet.text(x + 15, 27, word, "soft", size=12.5)
            x += 34 + 7.2 * len(word)
        sheet.text(14, top - 12, f"{len(pythons)} Pythons each", "soft", size=11)
        for number, row in enumerate(ROWS):
            y = top + number * height
            if number % 2 == 0:
                sheet.box(8, y - 3, 504, height, "card", "none", radius=3)
            sheet.text(30, y + 11, str(row.number), "soft", size=12, anchor="end")
            sheet.text(38, y + 11, row.what, size=12)
            for column, style in enumerate(STYLES):
                step = (group - 8) / max(1, len(pythons))
                for place, name in enumerate(pythons):
                    told = result(kept, name, row, style)
                    colour = "edge" if style in row.on_purpose else colours[told]
                    x = left + column * group + place * step
                    sheet.box(x, y, max(1.0, step - 1), 14, colour, "none", radius=1)

    title = "What breaks at a fork, on each Python"
    drawn = draw_both("matrix", title, 520, top + len(ROWS) * height + 10, draw)
    files = write_pictures(DOCS / "pictures", drawn)
    PAGE.write_text(text(kept), encoding="utf-8")
    return [PAGE, *files]
