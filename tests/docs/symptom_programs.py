"""Programs that show a symptom of docs/symptoms.md which no hazard's own program shows."""

from __future__ import annotations

from typing import Any


def tls(fork: Any) -> None:
    """Parent and child write into one TLS connection."""
    import os
    import socket
    import ssl

    def context(protocol: Any) -> ssl.SSLContext:
        new = ssl.SSLContext(protocol)
        new.check_hostname = False
        new.verify_mode = ssl.CERT_NONE
        # A key exchange in which nobody has a certificate.
        new.maximum_version = ssl.TLSVersion.TLSv1_2
        new.set_ciphers("AECDH:@SECLEVEL=0")
        return new

    listener = socket.create_server(("127.0.0.1", 0))
    server = os.fork()
    if server == 0:
        plain = listener.accept()[0]
        try:
            with context(ssl.PROTOCOL_TLS_SERVER).wrap_socket(plain, server_side=True) as one:
                while data := one.recv(100):
                    one.sendall(data)
        except OSError as exc:
            print("the server:", repr(exc), flush=True)
        os._exit(0)
    plain = socket.create_connection(listener.getsockname(), timeout=5)
    connection = context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain)

    def use() -> str:
        try:
            for _ in range(20):
                connection.sendall(b"hello")
                connection.recv(100)
        except OSError as exc:
            return repr(exc)
        return "ok"

    assert use() == "ok"
    child = fork(use)
    ended = [use(), child.result()]
    assert ended == ["ok", "ok"], ended


def inherited_pool(fork: Any) -> None:
    """The child uses the parent's process pool."""
    import concurrent.futures
    import multiprocessing

    context = multiprocessing.get_context("fork")
    executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
    assert executor.submit(int).result() == 0

    def use() -> str:
        try:
            return str(executor.submit(int).result())
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"

    print("the child:", fork.run(use, end="_exit"), flush=True)
    executor.shutdown()


def threads(fork: Any) -> None:
    """A thread runs while the process forks."""
    import threading
    import warnings

    warnings.simplefilter("always")
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    fork.run(int, end="_exit")
    done.set()
    thread.join()
