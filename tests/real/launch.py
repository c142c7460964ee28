"""Run a user's program, which knows nothing of forksafe, under each way to use it.

As a script: ``launch.py WAY PROGRAM ARGS...``. WAY is ``plain`` (forksafe is not even imported),
``install`` (`forksafe.install` at the start of the program) or ``replace`` (``os.fork`` is
`forksafe.safe_fork`).
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessions import Outcome

PROGRAMS = Path(__file__).parent / "programs"
OURS = ("install", "replace")


def run(
    way: str, program: str, *args: str, timeout: float = 60.0, idle: float | None = None
) -> Outcome:
    """Run the file `program` of the folder ``programs`` in a fresh interpreter.

    Args:
        way: See the top of this file.
        program: The file's name.
        args: The program's arguments.
        timeout: Seconds until it is killed with all that it started.
        idle: Seconds of idleness until then; None: no limit.
    """
    import sessions  # here: the fresh interpreter has no use for it

    command = [sys.executable, "-W", "ignore::DeprecationWarning", __file__]
    command += [way, str(PROGRAMS / program), *args]
    return sessions.run(command, timeout, idle)


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
