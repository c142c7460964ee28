"""Run one program of a hazard's test file, in this fresh interpreter: FILE FUNCTION STYLE ...

The styles are those of the harness, and ``two-lines``: ``os.fork()`` with the two lines in the
child that are the well-known remedy. Without arguments, print what this interpreter is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "hazards"), str(TESTS)]

import harness  # noqa: E402 - it is found there


def with_two_lines() -> None:
    """Have each fork do in the child what multiprocessing's children do first."""
    from multiprocessing import util

    def os_fork(forker: harness.Forker) -> int:
        pid = os.fork()
        if pid == 0:
            util._finalizer_registry.clear()  # type: ignore[attr-defined] # private: the two lines
            util._run_after_forkers()  # type: ignore[attr-defined] # likewise
        return pid

    harness.Forker.os_fork = os_fork  # type: ignore[method-assign,assignment]


def names() -> tuple[str, str]:
    """Return this Python's short name, as the table shows it, and its whole version."""
    import platform
    import sysconfig

    free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    short = "{}.{}".format(*sys.version_info) + free
    version = platform.python_version() + free
    if harness.PYPY:
        own: tuple[int, ...] = sys.pypy_version_info  # type: ignore[attr-defined] # PyPy's alone
        return f"PyPy {short}", f"{version}, PyPy " + "{}.{}.{}".format(*own)
    return short, version


if __name__ == "__main__":
    if len(sys.argv) == 1:
        import json

        print(json.dumps(names()))
        sys.exit()
    if sys.argv[3] == "two-lines":
        sys.argv[3] = "raw"
        with_two_lines()
    harness.main()
