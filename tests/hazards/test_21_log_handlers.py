"""Row 21: records that wait in a handler, and the connection that one has, are the parent's."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from harness import Forker, run


def waiting_records(fork: Forker) -> None:
    import logging
    import logging.handlers
    import os
    import tempfile

    path = os.path.join(tempfile.mkdtemp(), "log")
    target = logging.FileHandler(path)
    handler = logging.handlers.MemoryHandler(100, target=target)
    log = logging.getLogger("row 21")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    log.info("before the fork")

    def child() -> None:
        log.info("from the child")
        handler.flush()

    fork.run(child)
    log.info("after the fork")
    handler.flush()
    with open(path) as file:
        lines = file.read().splitlines()
    assert lines == ["from the child", "before the fork", "after the fork"], lines


class _Server:
    """Takes connections, and keeps what comes by each, apart."""

    def __init__(self, family: str = "AF_INET") -> None:
        import socket
        import threading

        self.got: list[bytes] = []
        self._changed = threading.Condition()
        self._socket = socket.socket(getattr(socket, family))
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.address = self._socket.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        import threading

        while True:
            connection, _ = self._socket.accept()
            self.got.append(b"")
            number = len(self.got) - 1
            threading.Thread(target=self._take, args=(connection, number), daemon=True).start()

    def _take(self, connection: Any, number: int) -> None:
        while data := connection.recv(65536):
            with self._changed:
                self.got[number] += data
                self._changed.notify_all()

    def wait_for(self, *parts: bytes) -> None:
        with self._changed:
            assert self._changed.wait_for(
                lambda: all(any(part in got for got in self.got) for part in parts), 10
            ), self.got


def _own_connections(fork: Forker, make: Callable[[tuple[str, int]], Any]) -> None:
    import logging
    import os

    server = _Server()
    handler = make(server.address)
    log = logging.getLogger("row 21")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    log.info("first of the parent")
    server.wait_for(b"first of the parent")
    for number in range(3):
        fork.run(log.info, "of child %d", number)
    log.info("second of the parent")
    server.wait_for(b"second of the parent", b"of child 2")
    by_process = [got for got in server.got if b"of the parent" in got]
    assert len(by_process) == 1, server.got
    assert b"child" not in by_process[0], "a child wrote to the parent's connection"
    assert len(server.got) == 4, server.got
    os._exit(0)


def socket_handler(fork: Forker) -> None:
    import logging.handlers

    _own_connections(fork, lambda address: logging.handlers.SocketHandler(*address))


def syslog_over_tcp(fork: Forker) -> None:
    import logging.handlers
    import socket

    _own_connections(
        fork,
        lambda address: logging.handlers.SysLogHandler(address, socktype=socket.SOCK_STREAM),
    )


CONTROLS: dict[Callable[[Forker], None], str] = {
    waiting_records: "AssertionError: ['before the fork'",
    socket_handler: "a child wrote to the parent's connection",
    syslog_over_tcp: "a child wrote to the parent's connection",
}


@pytest.mark.parametrize("program", CONTROLS)
def test_they_are_the_parents(program: Callable[[Forker], None], style: str) -> None:
    """The child's own records go out once, by a connection of its own."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
@pytest.mark.parametrize("program", CONTROLS)
def test_elsewhere_both_write_them(program: Callable[[Forker], None], style: str) -> None:
    """Records twice; two processes in one conversation."""
    outcome = run(program, style)
    assert outcome.shows(CONTROLS[program]), outcome
