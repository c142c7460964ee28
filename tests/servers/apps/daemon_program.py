"""A program that becomes a daemon with a manager that it started before: ``... RESULT``."""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing import get_context
from pathlib import Path

if "WITH_FORKSAFE" in os.environ:
    import forksafe

    forksafe.install()

from daemon import DaemonContext

result = Path(sys.argv[1])
manager = get_context("fork").Manager()
shared = manager.dict(started=os.getpid())
assert shared["started"] == os.getpid()

with DaemonContext(detach_process=True, working_directory=str(result.parent)):
    try:
        shared["daemon"] = os.getpid()
        told = f"whole {shared['started'] != shared['daemon']}"
    except BaseException:
        told = traceback.format_exc()
    part = result.with_suffix(".part")
    part.write_text(told)
    part.rename(result)
