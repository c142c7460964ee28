"""Measure what forksafe costs, against the budgets it has set itself.

    python tests/benchmarks/run.py [--quick] [--json] [--samples N] [ROW ...]

Each row runs in a fresh interpreter. The table has the medians of both sides, the ratio of the
medians with the interval in which it lies in 95 of 100 resamplings, and the budget: the most that
the ratio may be. A ratio is over budget only where the whole interval is. Exit status 0, unless a
measurement crashed: what is measured says more about the machine than a test should.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import rows


def interval(a: list[float], b: list[float], times: int = 400) -> tuple[float, float]:
    """Return where median(b) / median(a) lies in 95 of 100 resamplings."""
    draw = random.Random(0)
    ratios = sorted(
        median(draw.choices(b, k=len(b))) / median(draw.choices(a, k=len(a))) for _ in range(times)
    )
    return ratios[times // 40], ratios[-1 - times // 40]


def measure(name: str, samples: int, quick: bool) -> dict[str, Any]:
    """Run one row in a fresh interpreter."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(Path(rows.__file__))]
    command += [name, str(samples), "quick" if quick else "full"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=900)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def summary(row: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what there is to say of a row."""
    a, b, budget = measured["a"], measured["b"], rows.ROWS[row]
    low, high = interval(a, b)
    return {
        "name": row.__name__,
        "what": row.__doc__.rstrip("."),
        "samples": len(a),
        "a": median(a),
        "b": median(b),
        "ratio": median(b) / median(a),
        "low": low,
        "high": high,
        "budget": budget,
        "over": budget is not None and low > budget,
        "unit": measured.get("unit", "us"),
        "note": measured.get("note", ""),
    }


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    ratio = f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    budget = "" if row["budget"] is None else f"{row['budget']:.2f}"
    verdict = "" if row["budget"] is None else "OVER" if row["over"] else "ok"
    factor = 1e6 if row["unit"] == "us" else 1
    medians = f"{row['b'] * factor:>9,.0f} : {row['a'] * factor:<9,.0f} {row['unit']}"
    text = f"{row['what']:<66} {medians} {ratio:<24} {budget:>6} {verdict}"
    return text + (f"\n    {row['note']}" if row["note"] else "")


def main() -> int:
    """Measure, and print the table."""
    names = {row.__name__: row for row in rows.ROWS}
    first_line = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="run.py", description=first_line)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a few samples: does it work?")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--samples", type=int, default=400, help="of each side; default: 400")
    options = parser.parse_args()
    unknown = [name for name in options.rows if name not in names]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}")
    samples = 12 if options.quick else options.samples
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
    load = os.getloadavg()[0]
    if not options.json:
        print(f"{machine}, load {load:.1f}; {samples} samples of each side")
        print(f"{'':<66} {'medians':<24} {'ratio (95 %)':<24} budget", flush=True)
    results = []
    for name in options.rows or names:
        results.append(summary(names[name], measure(name, samples, options.quick)))
        if not options.json:
            print(line(results[-1]), flush=True)
    if options.json:
        print(json.dumps({"machine": machine, "load": load, "rows": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
