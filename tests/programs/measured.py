"""A program whose lines coverage.py counts, in its child and in the parent: HOW it forks."""

from __future__ import annotations

import multiprocessing
import os
import sys

import forksafe


def in_the_child() -> str:
    return "in the child"


def in_the_parent() -> str:
    return "in the parent"


if sys.argv[1] == "forked":
    with forksafe.forked() as fork:
        if fork.is_child:
            in_the_child()
elif sys.argv[1] == "process":
    process = multiprocessing.get_context("fork").Process(target=in_the_child)
    process.start()
    process.join()
else:
    pid = os.fork()
    if pid == 0:
        in_the_child()
        os._exit(0)
    os.waitpid(pid, 0)
in_the_parent()
