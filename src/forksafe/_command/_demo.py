"""``forksafe demo``: one program under four ways to fork, and a table of what became of it.

Nothing here forks, and nothing here is decided beforehand: each way runs in a fresh interpreter,
and its row says what was seen there. What a run leaves behind, hung as it may be, is in a session
of its own and is killed, also on Ctrl-C.
"""

from __future__ import annotations

import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

from . import _demo_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO

STYLES = ("os.fork", "safe_fork", "install + os.fork", "forked")
PLAIN = STYLES[0]
PATIENCE = 3.0  # seconds without a round trip until a side counts as hung
START = 8.0  # seconds until the first round trip
LIMIT = 18.0  # seconds, all in all
_MUTE = "ended without a word"
_NO_FORK = 2


def demo(*, as_json: bool = False) -> int:
    """Run the demonstration.

    Args:
        as_json: Write the result as JSON to stdout, and the progress to stderr.

    Returns:
        The exit status: 0 if every way to fork of forksafe's is ok, 1 if not, 2 where this
        platform cannot fork, 130 after Ctrl-C.
    """
    if not hasattr(os, "fork"):
        print("forksafe demo: this platform has no os.fork(), so nothing breaks", file=sys.stderr)
        return _NO_FORK
    out = sys.stderr if as_json else sys.stdout
    try:
        with _terminated_as_interrupted():
            results = _run_all(out)
    except KeyboardInterrupt:
        print("forksafe demo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    ok = all(result.ok for result in results if result.style != PLAIN)
    if as_json:
        print(json.dumps(_as_dict(results, ok), indent=2))
    else:
        _print_table(results)
    return 0 if ok else 1


class _Result:
    """What was seen of one way to fork."""

    def __init__(self, style: str) -> None:
        self.style = style
        self.round_trips = {"parent": 0, "child": 0}
        self.outcomes: dict[str, str] = {}
        self.end: str | None = None  # what went wrong besides
        self.noise: list[str] = []

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def outcome(self) -> str:
        parent, child = (self.outcomes.get(side, _MUTE) for side in self.round_trips)
        told = parent if parent == child else f"parent: {parent}; child: {child}"
        if self.end is None:
            return told
        return self.end if told == "ok" else f"{told}; {self.end}"


def _run_all(out: TextIO) -> list[_Result]:
    print(
        "A parent and its forked child use one dictionary of a manager at once, "
        f"{_demo_program.ROUND_TRIPS} round trips each "
        f"({platform.python_implementation()} {platform.python_version()}).",
        file=out,
        flush=True,
    )
    deadline = time.monotonic() + LIMIT
    results = []
    for style in STYLES:
        print(f"  {style} ...", end=" ", file=out, flush=True)
        result = _run_style(style, deadline)
        results.append(result)
        print(result.outcome, file=out, flush=True)
        if result.noise and not result.ok and style != PLAIN:
            print(*result.noise, sep="\n", file=sys.stderr)
    return results


def _run_style(style: str, deadline: float) -> _Result:
    program = os.path.abspath(_demo_program.__file__)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", program, style]
    result = _Result(style)
    process = subprocess.Popen(
        command,
        # Here, since multiprocessing's helpers import from the directory they are started in.
        cwd=os.path.dirname(program),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    stopped: str | None = "interrupted"
    try:
        stopped = _watch(process, result, deadline)
    finally:
        # Before it is reaped: until then the number is its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        code = process.wait()
    if stopped is not None:
        if len(result.outcomes) == len(result.round_trips):
            result.end = "did not end"
        for side in result.round_trips:
            result.outcomes.setdefault(side, stopped)
    elif code != 0 and all(outcome == "ok" for outcome in result.outcomes.values()):
        result.end = f"exit status {code}"
    return result


def _watch(process: subprocess.Popen[bytes], result: _Result, deadline: float) -> str | None:
    """Follow a run until all its processes have ended (None), or tell why it was given up."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    rest = b""
    begin = time.monotonic()
    moved: dict[str, float] = {}  # when each side last did; empty before the first round trip
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if moved:
                running = [side for side in moved if side not in result.outcomes] or list(moved)
                patient = max(moved[side] for side in running) + PATIENCE
            else:
                patient = begin + START
            now = time.monotonic()
            if now >= deadline:
                return f"unfinished after {now - begin:.0f} s"
            if now >= patient:
                return f"hung after {PATIENCE if moved else START:g} s"
            if not selector.select(min(patient, deadline) - now):
                continue
            data = os.read(fd, 65536)
            if not data:
                return None
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                side = _take(line.decode(errors="replace"), result)
                if side is not None:
                    moved = moved or dict.fromkeys(result.round_trips, now)
                    moved[side] = time.monotonic()


def _take(line: str, result: _Result) -> str | None:
    if line in result.round_trips:
        result.round_trips[line] += 1
        return line
    if line.startswith('{"side": '):
        end = json.loads(line)
        side: str = end["side"]
        result.outcomes[side] = end["outcome"]
        return side
    if line:
        result.noise.append(line)
    return None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP, too, end the run by way of its ``finally`` clauses."""

    def interrupt(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, interrupt) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _print_table(results: list[_Result]) -> None:
    rows = [("style", "parent", "child", "outcome")]
    for result in results:
        counts = result.round_trips
        rows.append((result.style, str(counts["parent"]), str(counts["child"]), result.outcome))
    width = max(len(row[0]) for row in rows)
    print()
    for style, parent, child, outcome in rows:
        print(f"{style:{width}}  {parent:>6}  {child:>5}  {outcome}")
    print()
    if results[0].ok:
        print("os.fork() happened to work this time; it is not made to.")
    broken = [result.style for result in results if not result.ok and result.style != PLAIN]
    if broken:
        print(f"Not ok, though forksafe made it: {', '.join(broken)}.")


def _as_dict(results: list[_Result], ok: bool) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "round_trips_wanted": _demo_program.ROUND_TRIPS,
        "styles": [
            {
                "style": result.style,
                "parent": result.round_trips["parent"],
                "child": result.round_trips["child"],
                "outcome": result.outcome,
                "ok": result.ok,
            }
            for result in results
        ],
        "ok": ok,
    }
