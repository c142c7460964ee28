"""Run a program in a session of its own, and leave nothing of it behind.

A program that hangs says nothing, so it takes a time limit to find out. Where a hang is what is
expected, waiting for all of the limit is a waste: there the limit is one of idleness, in which
nothing in the whole session has run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

# Seconds of idleness after which a program that is expected to hang is taken to do so.
IDLE = 2.5
# Nanoseconds of idle running: who waits in a loop, by looking and sleeping, uses less in `IDLE`.
_SOME = 20_000_000


class Outcome(NamedTuple):
    """How a program went."""

    returncode: int | None  # None: it hung, and was killed
    output: str

    @property
    def healthy(self) -> bool:
        return self.returncode == 0

    def __str__(self) -> str:
        return f"exit status {self.returncode}\n{self.output}"


def run(
    command: list[str],
    timeout: float,
    idle: float | None = None,
    env: dict[str, str] | None = None,
) -> Outcome:
    """Run `command`; kill it, with all that it started, when it hangs or has ended.

    Args:
        command: The program and its arguments.
        timeout: Seconds until it is said to hang.
        idle: Seconds of idleness until it is said to hang; None: no limit.
        env: Environment variables to add.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **(env or {})},
    )
    returncode: int | None = None
    try:
        output = _communicate(process, timeout, idle)
        returncode = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # as it should be
    return Outcome(returncode, output.decode(errors="replace"))


def _communicate(process: subprocess.Popen[bytes], timeout: float, idle: float | None) -> bytes:
    if idle is None or not os.path.exists("/proc/self/schedstat"):
        return process.communicate(timeout=timeout)[0]
    start = since = time.monotonic()
    used = 0
    while True:
        try:
            return process.communicate(timeout=0.5)[0]
        except subprocess.TimeoutExpired:
            now, using = time.monotonic(), _running_time(process.pid)
            if using - used > _SOME:
                since, used = now, using
            if now - start > timeout or now - since > idle:
                raise


def _running_time(session: int) -> int:
    """Return the nanoseconds for which the threads of a session have run: proc(5), schedstat."""
    used = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(pid)) == session:
                for task in Path("/proc", pid, "task").iterdir():
                    used += int((task / "schedstat").read_text().split()[0])
        except (OSError, ValueError):
            pass  # it has ended
    return used
