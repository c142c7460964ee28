"""Run a short program in a fresh interpreter, as a user's process would."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

# Unbuffered output would hide what a fork does to buffers.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}


def script(
    source: str, *options: str, argv: tuple[str, ...] = (), **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run `source`; return how it went. `options` are the interpreter's, `argv` the program's."""
    kwargs = {"env": ENVIRONMENT, "timeout": 60, "check": False, **kwargs}
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            *options,
            "-c",
            textwrap.dedent(source),
            *argv,
        ],
        capture_output=True,
        text=True,
        **kwargs,
    )
