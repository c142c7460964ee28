"""What callbacks may use, though forksafe was imported before it: threads, logging, executors.

At-fork hooks run in the child in the order in which they were registered, so those of modules that
were imported later have not run when the callbacks do.
"""

from __future__ import annotations

import pytest
from harness import script

FIRST = """
import sys
import forksafe

if sys.argv[1] == "hook":
    forksafe.install()
import logging, os, threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import util

class Owner:
    pass

owner = Owner()

def fork():
    pid = os.fork() if sys.argv[1] == "hook" else forksafe.safe_fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
    return pid
"""

THREAD = """
def restart(owner):
    owner.stop = threading.Event()
    owner.thread = threading.Thread(target=owner.stop.wait)
    owner.thread.start()

util.register_after_fork(owner, restart)
if not fork():
    print(owner.thread.is_alive(), owner.thread in threading.enumerate(), flush=True)
    owner.stop.set()
    owner.thread.join()
    os._exit(0)
"""

LOGGING = """
logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
handler = logging.getLogger().handlers[0]
held, release = threading.Event(), threading.Event()

def hold():
    with handler.lock:
        held.set()
        release.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
util.register_after_fork(owner, lambda owner: logging.info("True True"))
if not fork():
    sys.stdout.flush()
    os._exit(0)
release.set()
"""

EXECUTOR = """
executor = ThreadPoolExecutor(1)

def submit(owner):
    owner.future = executor.submit(abs, -3)

util.register_after_fork(owner, submit)
if not fork():
    print(owner.future.result(10) == 3, executor.submit(abs, -4).result(10) == 4, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("how", ["safe_fork", "hook"])
@pytest.mark.parametrize("program", [THREAD, LOGGING, EXECUTOR], ids=["thread", "log", "executor"])
def test_a_callback_finds_a_whole_process(program: str, how: str) -> None:
    """A thread that it starts lives on, a record that it logs is written, its work is done."""
    done = script(FIRST + program, argv=(how,), timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")
