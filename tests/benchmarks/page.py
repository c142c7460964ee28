"""Of the results that docs/benchmarks.json keeps, make the page, its plots and README's numbers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DATA = DOCS / "benchmarks.json"
PAGE = DOCS / "benchmarks.md"
README = ROOT / "README.md"
sys.path.append(str(DOCS / "drawing"))

NOTHING = "Not measured yet for this version; `{command}` puts the numbers here."
COMMAND = "python tests/benchmarks/run.py --write"

# The rows of the plot of forks, with a few words for each.
FORKS = {
    "fork": "one thread, the usual imports",
    "fork_threads": "beside 10 threads and 2 executors",
    "fork_busy": "beside 2 threads that compute",
    "fork_1_proxy": "with 1 proxy of a manager",
    "fork_10_proxies": "with 10 proxies",
    "fork_100_proxies": "with 100 proxies",
    "fork_1gib": "with a heap of 1 GiB",
}
COLOURS = {"os.fork()": "soft", "two lines": "note", "Process": "blue", "safe_fork()": "good"}


def load() -> dict[str, Any]:
    """Return the results that were kept."""
    kept: dict[str, Any] = {"rows": {}}
    if DATA.exists():
        kept = json.loads(DATA.read_text(encoding="utf-8"))
    return kept


def save(kept: dict[str, Any]) -> None:
    """Keep the results."""
    DATA.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def between(text: str, name: str, new: str) -> str:
    """Return `text` with what stands between the marks of `name` replaced."""
    mark = re.compile(
        rf"(<!-- measured: {name} -->\n).*?(<!-- end of what was measured -->)", re.DOTALL
    )
    found, count = mark.subn(lambda match: match[1] + new.rstrip("\n") + "\n" + match[2], text)
    assert count == 1, f"no place for {name}"
    return found


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.0f} µs"


def _side(row: dict[str, Any], value: float) -> str:
    if row["unit"] == "us":
        return _time(value)
    if row["unit"] == "kB":
        return f"{value / 1000:,.1f} MB"
    return f"{value:.0f} {row['unit']}"


def _stamp(rows: list[dict[str, Any]]) -> str:
    stamps = {"{python}, {machine}, {versions}, {date}".format(**row["made with"]) for row in rows}
    return "; ".join(sorted(stamps))


def readme(kept: dict[str, Any]) -> str:
    """Return README's three numbers."""
    rows = kept["rows"]
    if not {"fork", "freeze", "served"} <= set(rows):
        return NOTHING.format(command=COMMAND)
    fork, freeze, served = rows["fork"], rows["freeze"], rows["served"]
    process = fork["sides"]["Process"]
    lines = ["| | without | with forksafe |", "|---|---|---|"]
    for what, without, with_it in (
        (
            "a fork, child reaped",
            f"{_time(fork['a'])} (`Process`: {_time(process)})",
            f"**{_time(fork['b'])}**, {fork['ratio']:.2f} times",
        ),
        (
            "private memory of a Gunicorn worker, 300 MB preloaded",
            _side(freeze, freeze["a"]),
            f"**{_side(freeze, freeze['b'])}** by `install(freeze=True)`",
        ),
        (
            "right answers to 200 requests, a counter in a preloaded Gunicorn",
            f"{served['a']:.0f}",
            f"**{served['b']:.0f}**",
        ),
    ):
        lines.append(f"| {what} | {without} | {with_it} |")
    lines += ["", f"Medians; {_stamp([fork, freeze, served])}."]
    return "\n".join(lines)


def table(kept: dict[str, Any]) -> str:
    """Return the table of docs/benchmarks.md."""
    rows = list(kept["rows"].values())
    if not rows:
        return NOTHING.format(command=COMMAND)
    lines = ["| what | medians | ratio (95 %) | budget |", "|---|---|---|---|"]
    for row in rows:
        sides = ", ".join(f"{name} {_side(row, value)}" for name, value in row["sides"].items())
        ratio = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        if row["unit"].startswith("of"):
            ratio = ""
        budget = "" if row["budget"] is None else f"{row['budget']:.2f}"
        note = f"; {row['note']}" if row["note"] else ""
        lines.append(f"| {row['what']} | {sides}{note} | {ratio} | {budget} |")
    return "\n".join([*lines, "", f"Measured with {_stamp(rows)}."])


PICTURE = """\
<picture>
  <source media="(prefers-color-scheme: dark)" srcset="pictures/{name}-dark.svg">
  <img src="pictures/{name}-light.svg" width="520" alt="{alt}">
</picture>
"""


def write(kept: dict[str, Any]) -> list[Path]:
    """Write the page, the plots and README's numbers; return the files."""
    from svg import draw_both
    from svg import write as write_pictures

    files = []
    plots = ""
    for name, title, alt, height, draw in _plots(kept["rows"]):
        drawn = draw_both(name, title, 520, height, draw)
        files += write_pictures(DOCS / "pictures", drawn)
        plots += PICTURE.format(name=name, alt=alt) + "\n"
    page = PAGE.read_text(encoding="utf-8")
    page = between(page, "plots", plots or NOTHING.format(command=COMMAND))
    PAGE.write_text(between(page, "table", table(kept)), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(between(text, "readme", readme(kept)), encoding="utf-8")
    return [*files, PAGE, README]


def _plots(rows: dict[str, Any]) -> list[tuple[str, str, str, float, Any]]:
    plots: list[tuple[str, str, str, float, Any]] = []
    forks = {name: words for name, words in FORKS.items() if name in rows}
    if forks:
        height = 62 + sum(34 + 17 * len(rows[name]["sides"]) for name in forks)

        def draw_forks(sheet: Any) -> None:
            sheet.text(16, 30, "One fork, child reaped", bold=True, size=16)
            sheet.text(504, 30, "each group has its own scale", "soft", size=12, anchor="end")
            y = 52.0
            for name, words in forks.items():
                sides = rows[name]["sides"]
                sheet.text(16, y + 12, words, bold=True, size=13)
                y += 20
                most = max(sides.values())
                for side, value in sides.items():
                    _bar(sheet, y, side, value / most, _time(value), COLOURS.get(side, "soft"))
                    y += 17
                y += 14

        alt = "Bars: " + "; ".join(_told(rows[name], words) for name, words in forks.items())
        plots.append(("benchmark-forks", "What a fork costs", alt, height, draw_forks))
    servers = {
        "freeze": "private memory of a worker, 300 MB preloaded",
        "served": "right answers of 200, 8 clients, preloaded counter",
        "request": "one request, its whole time",
        "imports": "import, beyond the start of Python",
    }
    servers = {name: words for name, words in servers.items() if name in rows}
    if servers:
        height = 62 + sum(34 + 17 * len(rows[name]["sides"]) for name in servers)

        def draw_servers(sheet: Any) -> None:
            sheet.text(16, 30, "In a server", bold=True, size=16)
            y = 52.0
            for name, words in servers.items():
                row = rows[name]
                sheet.text(16, y + 12, words, bold=True, size=13)
                y += 20
                most = max(row["sides"].values()) or 1
                for number, (side, value) in enumerate(row["sides"].items()):
                    colour = "good" if number else "soft"
                    _bar(sheet, y, side, value / most, _side(row, value), colour)
                    y += 17
                y += 14

        alt = "Bars: " + "; ".join(_told(rows[name], words) for name, words in servers.items())
        plots.append(("benchmark-servers", "forksafe in a server", alt, height, draw_servers))
    return plots


def _bar(sheet: Any, y: float, name: str, part: float, value: str, colour: str) -> None:
    sheet.text(158, y + 11, name, "soft", size=12.5, anchor="end")
    sheet.box(166, y, max(1.5, 250 * part), 13, colour, "none", radius=2)
    sheet.text(172 + 250 * part, y + 11, value, size=12.5)


def _told(row: dict[str, Any], words: str) -> str:
    sides = ", ".join(f"{name} {_side(row, value)}" for name, value in row["sides"].items())
    return f"{words}: {sides}"
