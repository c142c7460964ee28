"""What forksafe keeps from fork to fork never hides what came between them."""

from __future__ import annotations

import pytest
from harness import script

LATE = """
import asyncio, concurrent.futures.process, concurrent.futures.thread, os, sys, tempfile, time
import multiprocessing.forkserver, multiprocessing.managers, multiprocessing.pool
import multiprocessing.popen_fork, multiprocessing.resource_tracker
import forksafe

def children(family):
    read, write = os.pipe()
    pid = forksafe.safe_fork()
    if pid == 0:
        process = sys.modules.get(f"{family}.process")
        os.write(write, b"none" if process is None else b"%d" % len(process._children))
        os._exit(0)
    os.waitpid(pid, 0)
    return os.read(read, 10).decode()

family = sys.argv[1]
assert children(family) == "none"
process = __import__(family).get_context("fork").Process(target=time.sleep, args=(60,))
process.start()
print(children(family))
process.terminate()
process.join()
"""


@pytest.mark.parametrize("family", ["multiprocess", "billiard"])
def test_a_family_that_is_imported_after_a_fork(family: str) -> None:
    """Its children are not the child's, though multiprocessing had all its modules loaded."""
    pytest.importorskip(family)
    done = script(LATE, argv=(family,))
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
