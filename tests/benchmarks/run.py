"""Measure what forksafe costs, against the budgets it has set itself.

    python tests/benchmarks/run.py [--quick] [--json] [--write] [--samples N] [ROW ...]

Each row runs in a fresh interpreter. The table has the medians of both sides, the ratio of the
medians with the interval in which it lies in 95 of 100 resamplings, and the budget: the most that
the ratio may be. A ratio is over budget only where the whole interval is. A row whose packages are
not installed is left out, and says so. Exit status 0, unless a measurement crashed: what is
measured says more about the machine than a test should.

With ``--write`` the results are kept in docs/benchmarks.json, beside those of rows that were not
measured now; and docs/benchmarks.md, its plots and the numbers in README.md are made anew.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import page
import rows


def interval(a: list[float], b: list[float], times: int = 400) -> tuple[float, float]:
    """Return where median(b) / median(a) lies in 95 of 100 resamplings."""
    draw = random.Random(0)
    ratios = sorted(
        median(draw.choices(b, k=len(b))) / (median(draw.choices(a, k=len(a))) or 1e-9)
        for _ in range(times)
    )
    return ratios[times // 40], ratios[-1 - times // 40]


def measure(name: str, samples: int, quick: bool) -> dict[str, Any]:
    """Run one row in a fresh interpreter."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(Path(rows.__file__))]
    command += [name, str(samples), "quick" if quick else "full"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=1800)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def summary(row: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what there is to say of a row."""
    a, b, budget = measured["a"], measured["b"], rows.ROWS[row]
    low, high = interval(a, b)
    sides = {measured.get("a is", "allowed"): median(a), measured.get("b is", "audit()"): median(b)}
    sides.update({name: median(times) for name, times in measured.get("others", {}).items()})
    order = list(page.COLOURS)
    sides = dict(
        sorted(sides.items(), key=lambda side: order.index(side[0]) if side[0] in order else 0)
    )
    return {
        "name": row.__name__,
        "what": row.__doc__.rstrip("."),
        "samples": len(a),
        "a": median(a),
        "b": median(b),
        "sides": sides,
        "ratio": median(b) / (median(a) or 1e-9),
        "low": low,
        "high": high,
        "budget": budget,
        "over": budget is not None and low > budget,
        "unit": measured.get("unit", "us"),
        "rates": measured.get("rates"),
        "note": measured.get("note", ""),
    }


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    ratio = f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    budget = "" if row["budget"] is None else f"{row['budget']:.2f}"
    verdict = "" if row["budget"] is None else "OVER" if row["over"] else "ok"
    factor = 1e6 if row["unit"] == "us" else 1
    medians = f"{row['b'] * factor:>9,.0f} : {row['a'] * factor:<9,.0f} {row['unit']}"
    if row["unit"].startswith("of"):
        ratio = ""
    text = f"{row['what']:<66} {medians} {ratio:<24} {budget:>6} {verdict}".rstrip()
    if len(row["sides"]) > 2:
        text += "\n    " + ", ".join(f"{n} {t * factor:,.0f}" for n, t in row["sides"].items())
    return text + (f"\n    {row['note']}" if row["note"] else "")


def stamp() -> dict[str, str]:
    """Return what the numbers were measured with, and on."""
    versions = []
    for name in ("forksafe", "gunicorn"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass  # rows that need it are left out
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": ", ".join(versions),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def main() -> int:
    """Measure, and print the table."""
    names = {row.__name__: row for row in rows.ROWS}
    first_line = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="run.py", description=first_line)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a few samples: does it work?")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--write", action="store_true", help="keep them, and make the pages anew")
    parser.add_argument("--samples", type=int, default=400, help="of each side; default: 400")
    options = parser.parse_args()
    unknown = [name for name in options.rows if name not in names]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}")
    if options.write and options.quick:
        parser.error("what --quick measures is not for the pages")
    samples = 12 if options.quick else options.samples
    made_with, load = stamp(), os.getloadavg()[0]
    out = sys.stderr if options.json else sys.stdout
    told = f"{made_with['python']}, {made_with['machine']}, load {load:.1f}"
    print(f"{told}; {samples} samples of each side", file=out)
    print(f"{'':<66} {'medians':<24} {'ratio (95 %)':<24} budget", file=out, flush=True)
    results = []
    for name in options.rows or names:
        row = names[name]
        needed = rows.NEEDS.get(row)
        if needed and importlib.util.find_spec(needed) is None:
            what = (row.__doc__ or "").rstrip(".")
            print(f"{what:<66} left out: pip install {needed}", file=out)
            continue
        results.append(summary(row, measure(name, samples, options.quick)))
        print(line(results[-1]), file=out, flush=True)
    if options.json:
        print(json.dumps({"made with": made_with, "load": load, "rows": results}, indent=2))
    if options.write:
        kept = page.load()
        order = list(names)
        new = {row["name"]: {**row, "made with": made_with} for row in results}
        kept["rows"] = {**kept["rows"], **new}
        kept["rows"] = {name: kept["rows"][name] for name in order if name in kept["rows"]}
        page.save(kept)
        print(*page.write(kept), sep="\n", file=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
