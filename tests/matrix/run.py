"""Run every hazard's program under every way to fork, on each Python that is named.

    python tests/matrix/run.py [--write | --check] [--row N ...] [PYTHON ...]

It shows what it does as it goes, and prints a table. With ``--write`` the results are kept in
docs/matrix.json beside those of other Pythons, and docs/matrix.md and its picture are made anew
from them; ``--write --no-run`` does only that. With ``--check`` they must be what was kept. A
PYTHON needs no package at all: forksafe is taken from this checkout. Without one, the Python that
runs this is asked.

A program that goes well is run three times, since some faults are races; one that breaks has shown
it. What hangs is ended, with all that it has started.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import page
from rows import ROWS, STYLES, Row

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from harness import NOT_RUN, command  # noqa: E402 - it is found there

ONE = Path(__file__).with_name("one.py")
TIMES = 3

WORKS, BREAKS, MISSING = "works", "breaks", "missing"


def name_of(python: str) -> tuple[str, str]:
    """Return a Python's short name, as the table shows it, and its whole version."""
    done = subprocess.run([python, ONE], stdout=subprocess.PIPE, check=True)
    name, version = json.loads(done.stdout)
    return name, version


def cell(python: str, row: Row, style: str, times: int = TIMES) -> dict[str, str]:
    """Run a row's programs under one way to fork; return the result, and how it broke."""
    path = row.path
    if path is None:
        return {"result": MISSING, "how": f"there is no {row.file}"}
    env = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"PYTHONPATH": str(ROOT / "src"), **dict(row.env)}
    options = ["-W", "ignore::DeprecationWarning"]
    for program in row.programs:
        for _ in range(times):
            done = command(
                [python, *options, ONE, path, program, style, *row.arguments],
                env=env,
                merged=True,
                timeout=120,
                idle=3.0,
                lives_on=True,
            )
            if done.returncode == NOT_RUN:
                return {"result": MISSING, "how": last_line(done.stdout)}
            if done.returncode is None:
                return {"result": BREAKS, "how": "hangs"}
            if not done.healthy:
                return {"result": BREAKS, "how": last_line(done.stdout)}
    return {"result": WORKS}


def last_line(output: str) -> str:
    """Return what a program said last, without what is of this machine alone."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # This one many a child says at its exit, whatever else has gone wrong.
    lines = [line for line in lines if "can only join a child process" not in line] or lines
    said = lines[-1] if lines else "ends without a word"
    for line in reversed(lines):
        if "Error" in line.partition(":")[0] or line.startswith("harness.Broken"):
            said = line
            break
    said = said.replace("harness.Broken: ", "").removeprefix("AssertionError: ")
    return said.replace(tempfile.gettempdir(), "/tmp")[:100]


def main() -> int:
    """Run what is asked for."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="run.py", description=summary)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", default=[sys.executable])
    parser.add_argument("--row", type=int, action="append", help="only this one; may be repeated")
    parser.add_argument("--write", action="store_true", help="keep the results, make the page anew")
    parser.add_argument("--check", action="store_true", help="must agree with what was kept")
    parser.add_argument("--no-run", action="store_true", help="run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="programs at a time; default: 2")
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.row or row.number in options.row]
    kept = page.load()
    results: dict[str, dict[str, Any]] = {}
    begin = time.monotonic()
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    for python in [] if options.no_run else options.pythons:
        name, version = name_of(python)
        results[name] = {"version": version, "rows": {}}
        print(f"{version}: {len(rows)} programs, {len(STYLES)} ways to fork")
        print("     " + "  ".join(STYLES.values()), flush=True)
        with ThreadPoolExecutor(options.jobs) as pool:
            for number, row in enumerate(rows, 1):
                cells = dict(
                    zip(STYLES, pool.map(lambda style: cell(python, row, style), STYLES))  # noqa: B023 - used up before the loop goes on
                )
                results[name]["rows"][str(row.number)] = cells
                signs = "  ".join(
                    page.SIGNS[cells[style]["result"]].ljust(len(shown))
                    for style, shown in STYLES.items()
                )
                print(
                    f"{row.number:>3}  {signs}  {row.what}  "
                    f"({number}/{len(rows)}, {time.monotonic() - begin:.0f} s)",
                    flush=True,
                )
        if options.write:  # at once: who stops the run keeps what it has shown
            old = kept["pythons"].setdefault(name, {"rows": {}})
            old["rows"].update(results[name]["rows"])
            old.update(version=version, date=today, system=platform.system())
            page.save(kept)
    broken = [
        f"{name}, hazard {row.number}: {shown} {told['result']}: {told.get('how', '')}"
        for name, result in results.items()
        for row in rows
        for style, shown in page.ours(row)
        for told in [result["rows"][str(row.number)][style]]
        if told["result"] != WORKS
    ]
    if options.check:
        broken += [
            f"{name}, hazard {row.number}, {STYLES[style]}: {told['result']}, not {old} as kept"
            for name, result in results.items()
            for row in rows
            for style, told in result["rows"][str(row.number)].items()
            for old in [page.result(kept, name, row, style)]
            if old not in ("missing", told["result"])
        ]
    print(*broken, sep="\n")
    if options.write:
        print(*page.write(kept), sep="\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
