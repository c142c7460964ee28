"""``drop_connections=True``: goodbyes, transactions, borrowed connections, what is not known."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from databases import Servers
from serving import Site

# Each with the clients that it is about.
CASES = {
    "goodbyes": ("Psycopg", "Psycopg2", "Redis", "HttpClient"),
    "watch": ("Redis",),
    "atomic": ("Django",),
    "session": ("SQLAlchemy",),
    "sqlite": ("SQLAlchemy",),
    "borrowed": ("Urllib3", "Httpx"),
    "half_read": ("HttpClient", "Httpx"),
    "half_read_async": ("HttpxAsync",),
    "unknown": ("Redis", "HttpClient"),
    "frozen": ("SQLAlchemy",),
    "looks": (),
    "tuples": (),
    "block": ("SQLAlchemy",),
    "descendants": ("SQLAlchemy",),
    "amqp": ("Kombu",),
}
# What goes wrong without.
FAULTS = {
    "goodbyes": "server closed the connection unexpectedly",
    "watch": "no WatchError",
    "half_read": "no IncompleteRead",
    "half_read_async": "no RemoteProtocolError",
    "amqp": "BrokenPipeError",
    "borrowed": "EmptyPoolError",
    "sqlite": "assert file.pool.checkedin() == 0",
}


def run(servers: Servers, site: Site, case: str, style: str) -> str:
    """Run the case; return what it has written."""
    env: dict[str, str] = {}
    for client in CASES[case]:
        env.update(servers.environment(client))
    server = site.start("PYTHON", "connections_cases.py", case, style, **env)
    server.wait()
    return server.log


@pytest.mark.parametrize("case", CASES)
def test_case(servers: Servers, site: Site, case: str) -> None:
    written = run(servers, site, case, "drop")
    if case == "unknown":  # the hook for what cannot be raised has it, once
        assert written.count("has no _HTTPConnection__response") == 1
        written = written.splitlines()[-1] + "\n"
    assert written == "ok\n"


@pytest.mark.parametrize("case", FAULTS)
def test_case_without(servers: Servers, site: Site, case: str) -> None:
    assert FAULTS[case] in run(servers, site, case, "plain")


class Answer(BaseHTTPRequestHandler):
    """Keeps the connection open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say ok."""
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.mark.parametrize("style", ["drop", "plain"])
def test_connections_that_are_made_meanwhile(site: Site, style: str) -> None:
    """They are found as late as can be: else one of ten children has one of the parent's."""
    pytest.importorskip("urllib3", reason="needs urllib3, of the extra `servers`")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = site.start("PYTHON", "connections_fresh.py", str(server.server_port), style)
        assert program.wait() == 0, program.log
        server.shutdown()
    assert (program.log == "shared in 0\n") is (style == "drop"), program.log
