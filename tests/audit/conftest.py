"""Servers for the clients whose connections the audit tells: each a process of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Started, command_of, environment


def serve_http() -> None:
    import http.server

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


@pytest.fixture
def http_server() -> Iterator[str]:
    """A server in another process: its own sockets are not the audit's business."""
    started = Started()
    process = started.start(command_of(serve_http, ""), environment(), stdout=subprocess.PIPE)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().decode().strip()}/"
    finally:
        started.end()
        process.stdout.close()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[str]:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server: apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    started = Started()
    command = [server, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = started.start(command, environment(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(port))).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)  # it tells nobody when it is ready
        yield port
    finally:
        started.end()
