"""``forksafe demo``: one program under four ways to fork, and a table of what became of it.

Under ``os.fork()`` parent and child write into the one connection to a manager that the parent had
made, and each reads what was meant for the other (cpython gh-101320). The program is in this file,
too, which runs by its path, in a session of its own: under os.fork it does not import forksafe.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.managers import SyncManager
from typing import Any

STYLES = ("os.fork", "safe_fork", "install + os.fork", "forked")
PROGRAM = os.path.abspath(__file__)
LIMIT = 15.0  # seconds for a run
_PATIENCE = 3  # seconds for one round trip
_ROUND_TRIPS = 500  # of each side


def demo() -> int:
    """Run the demonstration; return 0 if each way to fork of forksafe's is ok, and 1 if not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    print("A parent and its forked child use one dictionary of a manager at once,")
    print(f"{_ROUND_TRIPS} round trips each:\n")
    print(f"{'way to fork':18} parent  child  outcome", flush=True)
    failed = 0
    for style in STYLES:
        row = run_style(style)
        failed |= style != STYLES[0] and not row["ok"]
        print("{style:18} {parent:6} {child:6}  {outcome}".format(**row), flush=True)
    return failed


def run_style(style: str) -> dict[str, Any]:
    """Run the program in a fresh interpreter; return what was seen of it."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", PROGRAM, style],
        cwd=os.path.dirname(PROGRAM),  # multiprocessing's helpers import from where they start
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if style == STYLES[0] else None,
        start_new_session=True,
    )
    try:
        told, end = process.communicate(timeout=LIMIT)[0], ""
    except subprocess.TimeoutExpired as exc:
        told, end = exc.output or b"", f"unfinished after {LIMIT:g} s"
    finally:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    lines = re.findall(r"^(parent|child) (\d+) (.+)$", told.decode(), re.MULTILINE)
    seen = {side: (int(trips), outcome) for side, trips, outcome in lines}
    missing = (0, end or "died without a word")
    (parent, p), (child, c) = (seen.get(side, missing) for side in ("parent", "child"))
    what = f"both {p}" if p == c else f"parent {p}; child {c}"
    if what == "both ok":
        what = end or (f"exit status {code}" if code else "ok")
    return {"style": style, "parent": parent, "child": child, "outcome": what, "ok": what == "ok"}


def _program(style: str) -> None:
    manager = SyncManager()
    manager.start()
    shared: Any = manager.dict(dict.fromkeys(range(100), 0))
    shared[0] = 0  # the first use connects
    pipe = os.pipe()
    by_pid: Any = os.fork
    if style != "os.fork":
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(PROGRAM)))  # was: its own
        import forksafe

        if style == "forked":
            with forksafe.forked() as fork:
                _use(shared, pipe, fork.is_child)
            return
        if style == "install + os.fork":
            forksafe.install()
        else:
            by_pid = forksafe.safe_fork
    pid = by_pid()
    _use(shared, pipe, in_child=pid == 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _use(shared: Any, pipe: tuple[int, int], in_child: bool) -> None:
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # raises KeyboardInterrupt
    trips, outcome = 0, "ok"
    try:
        os.write(pipe[1], b".") if in_child else os.read(pipe[0], 1)
        while trips < _ROUND_TRIPS and outcome == "ok":
            signal.alarm(_PATIENCE)
            answer = shared.values() if in_child else shared.__setitem__(0, 0)
            if type(answer) is (list if in_child else type(None)):
                trips += 1
            else:
                outcome = "got the other process's answer"
    except KeyboardInterrupt:
        outcome = f"hung for {_PATIENCE} s"
    except Exception as exc:
        outcome = " ".join(f"raised {type(exc).__name__}: {exc}".split())[:100]
    signal.alarm(0)
    os.write(1, f"\n{'child' if in_child else 'parent'} {trips} {outcome}\n".encode())  # at once


if __name__ == "__main__":
    _program(sys.argv[1])
