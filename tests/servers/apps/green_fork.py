"""Fork under gevent or eventlet: ``green_fork.py LIBRARY ORDER FORK``; tell what the child is."""

from __future__ import annotations

import os
import sys
from multiprocessing import get_context, util

library, order, how = sys.argv[1:]
with_forksafe = "WITH_FORKSAFE" in os.environ


def install() -> None:
    if with_forksafe:
        import forksafe

        forksafe.install()


if order == "before":
    install()

if library == "gevent":
    import gevent
    import gevent.os
    from gevent import monkey, sleep, spawn

    if order != "unpatched":
        monkey.patch_all()
    sleep(0)  # the hub runs
    fork = {"gevent.os.fork": gevent.os.fork, "os.fork": os.fork}[how]
else:
    import eventlet
    from eventlet import sleep, spawn

    eventlet.monkey_patch()
    sleep(0)
    fork = os.fork

if order != "before":
    install()

daemon = get_context("fork").Process(target=sleep, args=(30,), daemon=True)
daemon.start()
resets: list[int] = []


class Watched:
    """An object with a callback that counts the resets of its process."""


watched = Watched()
util.register_after_fork(watched, lambda _: resets.append(os.getpid()))
greenlets: list[str] = []

for _ in range(3):
    sys.stdout.flush()
    pid = fork()
    if pid == 0:
        spawn(greenlets.append, "ran")
        sleep(0.01)
        print(f"child resets {resets.count(os.getpid())} greenlets {greenlets}", flush=True)
        sys.exit(0)
    print("exit code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print("resets in the parent", len(resets))
daemon.join(0.2)
print("daemon lives", daemon.is_alive())
daemon.terminate()
daemon.join()
