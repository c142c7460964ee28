"""The audit while everything changes under it: it answers, truthfully, and never raises."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from fresh import LINUX, PYPY, value
from native import start_native

# Of each test; PyPy's heap makes for fewer. The whole is 10,000: FORKSAFE_AUDITS=5000.
AUDITS = int(os.environ.get("FORKSAFE_AUDITS", "10" if PYPY else "20"))


def churn(audits: str) -> Any:
    import importlib.util
    import multiprocessing
    import random
    import socket
    import tempfile
    import threading
    import time
    import types

    import forksafe

    sys.setswitchinterval(1e-5)
    audit = forksafe.audit
    stop = threading.Event()
    errors: list[str] = []
    server = socket.create_server(("127.0.0.1", 0), backlog=50)
    address = server.getsockname()
    steady = threading.Thread(target=stop.wait, name="steady", daemon=True)
    steady.start()
    if LINUX:
        start_native(b"native")

    def threads() -> None:
        new = threading.Thread(target=time.sleep, args=(random.random() / 1000,))
        new.start()
        new.join()

    def sockets() -> None:
        with socket.create_connection(address):
            server.accept()[0].close()
        for end in socket.socketpair():
            end.close()

    def modules() -> None:
        name = random.choice(["redis.connection", "grpc", "torch.cuda", "psycopg_pool", "sqlite3x"])
        sys.modules[name] = random.choice([types.ModuleType(name), None, object()])  # type: ignore[assignment]
        sys.modules.pop(name, None)

    def files() -> None:
        with tempfile.TemporaryDirectory(), tempfile.NamedTemporaryFile("w") as file:
            file.write("x")

    def queues() -> None:
        queue: Any = multiprocessing.Queue()
        queue.put(1)
        queue.close()
        queue.join_thread()

    def forever(work: Any) -> None:
        while not stop.is_set():
            try:
                work()
            except Exception as exc:
                errors.append(f"{work.__name__}: {exc!r}")
                return

    workers = [
        threading.Thread(target=forever, args=(work,), daemon=True)
        for work in (threads, sockets, modules, files, queues)
    ]
    for worker in workers:
        worker.start()
    assert importlib.util
    odd = []
    for _ in range(int(audits)):
        found = audit()
        names = [h.subject for h in found if h.kind == "thread"]
        if names.count("steady") != 1 or "(no name)" in names:
            odd.append(f"threads: {names}")
        odd += [str(h) + h.detail for h in found if h.kind == "unknown"]
        natives = [h.subject for h in found if h.kind == "native-thread" and h.severity == "action"]
        if natives != (["native"] if LINUX else []):
            odd.append(f"native threads: {natives}")
    stop.set()
    return [errors, odd[:20], len(odd)]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("interpreter", range(2))
def test_churn(interpreter: int) -> None:
    """Audits beside threads, sockets, files, queues and modules that come and go.

    Every one of them names the two threads that were there all the time, one of Python's and a
    native one, none takes one of Python's for a native one, and no part of any gives up.
    """
    errors, odd, number = value(churn, str(AUDITS), timeout=1700)
    assert errors == []
    assert (odd, number) == ([], 0)


def builds_tuples() -> Any:
    import threading

    import forksafe

    sys.setswitchinterval(1e-5)
    stop = threading.Event()
    errors: list[str] = []

    def build() -> None:
        try:
            while not stop.is_set():
                tuple(number for number in range(50))
        except SystemError as exc:
            errors.append(repr(exc))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(AUDITS):
        forksafe.audit(locks=True)
    stop.set()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the types of files are static in C")
def test_it_breaks_no_other_thread() -> None:
    """CPython cannot resize a tuple that others refer to, as ``gc.get_objects()`` does."""
    assert value(builds_tuples) == []
