"""Run a user's program, which knows nothing of forksafe, under each way to use it.

As a script: ``launch.py WAY PROGRAM ARGS...``. WAY is ``plain`` (forksafe is not even imported),
``install`` (`forksafe.install` at the start of the program) or ``replace`` (``os.fork`` is
`forksafe.safe_fork`).
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

PROGRAMS = Path(__file__).parent / "programs"
OURS = ("install", "replace")


class Outcome(NamedTuple):
    """How the program went."""

    returncode: int | None  # None: it hung, and was killed
    output: str

    @property
    def healthy(self) -> bool:
        return self.returncode == 0

    def __str__(self) -> str:
        return f"exit status {self.returncode}\n{self.output}"


def run(way: str, program: str, *args: str, timeout: float = 60.0) -> Outcome:
    """Run the file `program` of the folder ``programs`` in a fresh interpreter.

    Args:
        way: See the top of this file.
        program: The file's name.
        args: The program's arguments.
        timeout: Seconds until it is killed with all that it started.
    """
    command = [sys.executable, "-W", "ignore::DeprecationWarning", __file__]
    command += [way, str(PROGRAMS / program), *args]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    returncode: int | None = None
    try:
        output, _ = process.communicate(timeout=timeout)
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


def main() -> None:
    way, program, *args = sys.argv[1:]
    if way == "install":
        import forksafe

        forksafe.install()
    elif way == "replace":
        import forksafe

        os.fork = forksafe.safe_fork
    sys.argv = [program, *args]
    sys.path[0] = os.path.dirname(program)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
