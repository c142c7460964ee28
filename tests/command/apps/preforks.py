"""A program with a Manager, a Process and a child that execs, and then a worker of its own."""

import multiprocessing
import os
import subprocess
import time

from dirty import create

import forksafe

forksafe.install(on_hazard="warn")  # which looks at each fork, too
context = multiprocessing.get_context("fork")
manager = context.Manager()
helper = context.Process(target=time.sleep, args=(60,))
helper.start()
subprocess.run(["true"], preexec_fn=lambda: None, check=True)
create(daemon=True)


def spawn() -> None:
    if os.fork() == 0:  # the worker
        os._exit(0)
    print("forked")


spawn()
