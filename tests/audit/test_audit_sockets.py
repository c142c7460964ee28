"""Connected sockets, and databases: whoever opened them, the kernel knows."""

from __future__ import annotations

from typing import Any

import pytest
from fresh import LINUX, PYPY, hazards, value


def connected(family: str) -> Any:
    import os
    import socket
    import tempfile

    import forksafe

    server = socket.socket(getattr(socket, family))
    addresses = {"AF_INET": ("127.0.0.1", 0), "AF_INET6": ("::1", 0)}
    path = os.path.join(tempfile.mkdtemp(), "s")
    server.bind(addresses.get(family, path))
    server.listen()
    client = socket.socket(getattr(socket, family))
    client.connect(server.getsockname())
    peer = server.getsockname()
    fd = client.fileno()
    answer = forksafe.audit()
    assert client.fileno() == fd and client.getpeername() == peer
    text = {"AF_INET": "{}:{}", "AF_INET6": "[{}]:{}"}.get(family)
    subject = text.format(*peer[:2]) if text else peer
    return [
        h for h in answer if h.kind == "socket" and h.subject == subject and f"fd {fd}," in h.where
    ]


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
def test_a_connection_needs_action(family: str) -> None:
    """Its descriptor, family, both addresses and the object that holds it are told."""
    found = hazards(connected, family).one("socket")
    assert found.severity == "action"
    assert family in found.detail
    assert found.where.endswith(", socket:socket")
    assert "shared with the child" in found.summary
    assert found.remedy


def encrypted() -> Any:
    import socket
    import ssl
    import threading

    import forksafe

    def context(protocol: Any) -> Any:
        new = ssl.SSLContext(protocol)
        new.check_hostname = False
        new.verify_mode = ssl.CERT_NONE
        # A key exchange in which nobody has a certificate.
        new.maximum_version = ssl.TLSVersion.TLSv1_2
        new.set_ciphers("AECDH:@SECLEVEL=0")
        return new

    listening = socket.create_server(("127.0.0.1", 0))
    accepted: list[Any] = []

    def serve() -> None:
        server = context(ssl.PROTOCOL_TLS_SERVER)
        accepted.append(server.wrap_socket(listening.accept()[0], server_side=True))

    thread = threading.Thread(target=serve)
    thread.start()
    plain = socket.create_connection(listening.getsockname())
    client = context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain)
    thread.join()
    client.sendall(b"x")
    assert accepted[0].recv(1) == b"x"
    return [h for h in forksafe.audit() if h.where.startswith(f"fd {client.fileno()},")]


def test_a_tls_connection() -> None:
    """It is told as what it is: more breaks than the order of the bytes."""
    found = hazards(encrypted).one("socket")
    assert found.severity == "action"
    assert found.where.endswith(", ssl:SSLSocket")
    assert "encrypted" in found.detail
    assert "in the child" in found.remedy


def listener() -> Any:
    import socket

    import forksafe

    server = socket.create_server(("127.0.0.1", 0))
    assert server.fileno() > 2
    return forksafe.audit()


def test_a_listening_socket_is_advice() -> None:
    """It is meant to be shared; but a child that lives on keeps its port."""
    answer = hazards(listener)
    found = answer.one("socket")
    assert found.severity == "advice"
    assert "keeps the port of 127.0.0.1:" in found.summary


def loop() -> Any:
    import asyncio

    import forksafe

    loop = asyncio.new_event_loop()
    assert loop is not None
    return forksafe.audit()


def test_the_pair_inside_a_loop_is_not_told() -> None:
    assert not hazards(loop).of("socket")


def pair() -> Any:
    import socket

    import forksafe

    ends = socket.socketpair()
    assert ends
    return forksafe.audit()


def test_a_pair_is_advice() -> None:
    """Both its ends are in this process, or were given to a child on purpose."""
    found = hazards(pair).of("socket")
    assert len(found) == 2
    assert {h.severity for h in found} == {"advice"}


def default_timeout() -> Any:
    import os
    import socket

    import forksafe

    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    assert os.get_blocking(client.fileno())
    socket.setdefaulttimeout(5)
    forksafe.audit()
    return os.get_blocking(client.fileno())


def test_looking_does_not_change_a_socket() -> None:
    """With a default timeout, Python makes each socket object's descriptor non-blocking."""
    assert value(default_timeout) is True


def closed_by_peer() -> Any:
    import select
    import socket

    import forksafe

    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    accepted.close()
    select.select([client], [], [])
    return forksafe.audit()


@pytest.mark.skipif(not LINUX, reason="the state of a connection is Linux's TCP_INFO")
def test_a_connection_that_the_peer_has_closed_is_not_told() -> None:
    assert not [h for h in hazards(closed_by_peer).of("socket") if h.severity == "action"]


def http() -> Any:
    import http.client
    import http.server
    import threading

    import forksafe

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = http.client.HTTPConnection(*server.server_address[:2])
    client.request("GET", "/")
    client.getresponse().read()
    return [h for h in forksafe.audit() if "http.client" in h.where]


def test_http_client() -> None:
    """A connection that is kept alive is found by the object that keeps it."""
    found = hazards(http).one("socket")
    assert found.severity == "action"
    assert found.where.endswith("http.client:HTTPConnection")
    assert "close" in found.remedy


def sqlite() -> Any:
    import os
    import sqlite3
    import tempfile

    import forksafe

    path = os.path.join(os.path.realpath(tempfile.mkdtemp()), "my.db")
    db = sqlite3.connect(path)
    db.execute("create table t (x)")
    db.execute("begin immediate")  # it holds a lock that a second close() would drop
    answer = forksafe.audit()
    other = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("begin immediate")
    memory = sqlite3.connect(":memory:")
    memory.execute("create table t (x)")
    return [h for h in answer if h.kind == "database"]


def test_an_open_sqlite_database() -> None:
    """It is found by its descriptor, and its locks are left as they are."""
    answer = hazards(sqlite)
    found = answer.one("database")
    assert found.severity == "action"
    assert found.subject.endswith("/my.db") or not LINUX
    assert found.where.startswith("fd ")
    assert "connect in the child" in found.remedy


def manager() -> Any:
    import multiprocessing

    import forksafe

    with multiprocessing.get_context("fork").Manager() as manager:
        shared = manager.dict()
        shared["x"] = 1
        return forksafe.audit()


def test_a_managers_connection_is_fixed() -> None:
    """The step that runs the after-fork registry answers for the socket and the proxy."""
    answer = hazards(manager)
    assert {h.severity for h in answer.of("socket")} == {"fixed"}
    proxy = answer.one("proxy")
    assert proxy.severity == "fixed"
    assert {h.subject for h in answer.of("socket")} == {proxy.subject}
    assert not answer.actions, answer


def frozen() -> Any:
    import gc
    import socket

    import forksafe

    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    assert client
    gc.freeze()
    return forksafe.audit()


@pytest.mark.skipif(PYPY, reason="PyPy has no gc.freeze()")
def test_what_gc_freeze_hides() -> None:
    """Sockets are seen by the kernel's word; that their owners may not be is said."""
    answer = hazards(frozen)
    found = answer.of("socket")
    assert sorted(h.severity for h in found) == ["action", "advice"], "the other one listens"
    unknown = answer.one("unknown")
    assert unknown.severity == "advice" and unknown.subject == "gc.freeze"
    assert "before gc.freeze()" in unknown.remedy
