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
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import page
from one import NOT_RUN
from rows import ROWS, STYLES, Row

ROOT = Path(__file__).resolve().parents[2]
ONE = Path(__file__).with_name("one.py")
IDLE = 3.0  # seconds in which nothing of it runs: it hangs
LIMIT = 120.0  # seconds until it hangs in any case
SOME = 30_000_000  # nanoseconds of idleness: a loop that looks and sleeps
MARK = "FORKSAFE_MATRIX_RUN"
TIMES = 3

WORKS, BREAKS, MISSING = "works", "breaks", "missing"
PROBE = """
import json, platform, sys, sysconfig
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
pypy = sys.implementation.name == "pypy"
name = "%s%d.%d%s" % ("PyPy " if pypy else "", *sys.version_info[:2], free)
version = platform.python_version() + free
if pypy:
    version += ", PyPy %d.%d.%d" % sys.pypy_version_info[:3]
print(json.dumps([name, version]))
"""


def name_of(python: str) -> tuple[str, str]:
    """Return a Python's short name, as the table shows it, and its whole version."""
    done = subprocess.run([python, "-c", PROBE], stdout=subprocess.PIPE, check=True)
    name, version = json.loads(done.stdout)
    return name, version


def _processes(mark: str) -> list[int]:
    """Return what a run has started, wherever it has gone."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path("/proc", pid, "environ").read_bytes().split(b"\0"):
                found.append(int(pid))
        except OSError:
            pass  # it has ended, or is somebody else's
    return found


def _used(pids: list[int]) -> int:
    """Return the nanoseconds for which these processes have run."""
    used = 0
    for pid in pids:
        try:
            for task in Path("/proc", str(pid), "task").iterdir():
                used += int((task / "schedstat").read_text().split()[0])
        except OSError:
            pass  # it has ended
    return used


def execute(command: list[str], env: dict[str, str]) -> tuple[int | None, str]:
    """Run a command; return its exit status (None: it hung) and its output."""
    mark = f"{MARK}={os.getpid()}-{time.monotonic_ns()}"
    key, _, value = mark.partition("=")
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**env, key: value},
            start_new_session=True,
        )
        status: int | None = None
        begin = since = time.monotonic()
        before = 0
        try:
            while status is None:
                try:
                    status = process.wait(0.4)
                except subprocess.TimeoutExpired:
                    now, used = time.monotonic(), _used(_processes(mark))
                    if used - before > SOME:
                        since, before = now, used
                    if now - since > IDLE or now - begin > LIMIT:
                        break
        finally:
            for pid in _processes(mark):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it has ended by itself
            process.wait()
        output.seek(0)
        return status, output.read().decode(errors="replace")


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
            command = [python, *options, str(ONE), str(path), program, style, *row.arguments]
            status, output = execute(command, env)
            if status == NOT_RUN:
                return {"result": MISSING, "how": last_line(output)}
            if status != 0:
                return {"result": BREAKS, "how": "hangs" if status is None else last_line(output)}
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
