"""A parent that works on while children come, work and end, all with the client that it made.

``STYLE MODE``: how to fork (see `forker`), and what else there is. ``"in turn"``: the parent waits
for its one child. ``"at once"``: it goes on beside four. ``"threads"``: so do three threads.

Tells as JSON: the connections that the parent used before and since, those of the children, how the
children ended, and what the threads met.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import sys
import threading
import traceback
from typing import Any, Callable

from clients import Client, make

import forksafe

CHILDREN = 4


def forker(style: str) -> Callable[[], int]:
    """Return how to fork: ``"plain"``, ``"hook"``, ``"safe_fork"``, ``"c"``, ``"no drop"``."""
    if style == "hook":
        forksafe.install(drop_connections=True)
    if style == "no drop":
        forksafe.install()
    if style == "safe_fork":
        return lambda: forksafe.safe_fork(drop_connections=True)
    if style == "c":
        forksafe.install(drop_connections=True)
        return fork_in_c
    return os.fork


def fork_in_c() -> int:
    """Fork as uWSGI does: no hook of Python's runs."""
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        forksafe.after_fork_in_child()
    return int(pid)


def work(client: Client, who: str) -> list[str]:
    """Ask a few times; return the connections that were asked on."""
    used = []
    for number in range(4):
        token = f"{who}.{number}"
        answer = client.ask(token)
        assert answer.token == token, f"{token} got the answer of {answer.token}"
        used.append(answer.connection)
    return sorted(set(used))


errors: list[str] = []


def ask_until(client: Client, who: str, stop: threading.Event) -> None:
    """Ask until it is told to stop; at the forks it is in the middle of it."""
    while not stop.is_set():
        result = attempt(lambda: work(client, who))
        if isinstance(result, str):
            errors.append(result)


def attempt(function: Callable[[], Any]) -> Any:
    """Return the result, or the error as a string."""
    try:
        return function()
    except Exception as exc:
        traceback.print_exc()
        return "".join(traceback.format_exception_only(type(exc), exc)).strip()


def main(style: str, mode: str) -> None:
    fork = forker(style)
    client = make()
    before = work(client, "before")
    stop = threading.Event()
    threads = [
        threading.Thread(target=ask_until, args=(client, f"thread{number}", stop))
        for number in range(3 if mode == "threads" else 0)
    ]
    for thread in threads:
        thread.start()
    told, parents, pipes, pids = [], [], [], []
    for number in range(1 if mode == "in turn" else CHILDREN):
        read, write = os.pipe()
        pid = fork()
        if pid == 0:
            result = attempt(lambda: work(client, f"child{number}"))  # noqa: B023 - called here
            os.write(write, json.dumps(result).encode())
            os.close(write)
            if number % 2 or style == "plain":
                os._exit(0)
            sys.exit(0)
        os.close(write)
        pids.append(pid)
        pipes.append(read)
        if mode == "in turn":
            select.select([read], [], [])  # it has written, and asks no more
        parents.append(attempt(lambda: work(client, f"parent{number}")))  # noqa: B023 - as above
    for pipe in pipes:
        with os.fdopen(pipe) as file:
            told.append(json.loads(file.read() or '"nothing"'))
    stop.set()
    for thread in threads:
        thread.join()
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    parents.append(attempt(lambda: work(client, "after")))
    print(
        json.dumps(
            {
                "before": before,
                "parent": parents,
                "children": told,
                "ends": ends,
                "threads": errors,
            }
        )
    )
    sys.stdout.flush()
    os._exit(0)  # what the parent's own end does to its connections is not asked here


main(*sys.argv[1:])
