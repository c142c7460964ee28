"""Servers that applications are clients of: PostgreSQL, Redis, and our own for HTTP and HTTPS.

One of each for all tests of a process: PostgreSQL takes seconds to make. They end with it, however
it ends: what starts them waits for its standard input to close.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
from serving import APPS, free_port, wait_until

_UNTIL_STDIN_CLOSES = '"$@" </dev/null & read -r _; kill -"$0" $!; wait'


@contextmanager
def _running(
    directory: Path, *command: str, stop: str = "TERM", user: str | None = None
) -> Iterator[Path]:
    """Run a server in `directory` for the block, which is given its log."""
    log = directory / "log"
    with log.open("wb") as out:
        shell = subprocess.Popen(
            ["sh", "-c", _UNTIL_STDIN_CLOSES, stop, *command],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
        )
    try:
        yield log
    finally:
        assert shell.stdin is not None
        shell.stdin.close()
        shell.wait(20)


def _directory() -> Path:
    # Not in the tests' own: another user must get there.
    return Path(tempfile.mkdtemp(prefix="fs-", dir="/tmp"))


def _postgres() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    program = shutil.which("postgres")
    return None if program is None else Path(program).parent


class Servers:
    """What `apps/clients.py` connects to; each server is started when it is first needed."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def environment(self, client: str) -> dict[str, str]:
        """Return where the servers of `client` are; skip where its library is not installed."""
        for prefix, (modules, fixture) in _NEEDS.items():
            if client.startswith(prefix):
                for module in modules.split():
                    # A loaded kombu has no spec.
                    if module not in sys.modules and importlib.util.find_spec(module) is None:
                        pytest.skip(f"needs {module}: pip install forksafe[servers]")
                if client == "DjangoPool" and metadata.version("django") < "5.1":
                    pytest.skip("needs Django 5.1, the first with pools")
                found = self._request.getfixturevalue(fixture)
                return found if isinstance(found, dict) else {fixture.upper(): found}
        raise ValueError(client)


# By the beginning of the client's name; the first counts.
_NEEDS = {
    "SQLAlchemyAsyncpg": ("sqlalchemy asyncpg greenlet", "postgres"),
    "SQLAlchemyAsync": ("sqlalchemy psycopg greenlet", "postgres"),
    "SQLAlchemy2": ("sqlalchemy psycopg2", "postgres"),
    "SQLAlchemy": ("sqlalchemy psycopg", "postgres"),
    "Django": ("django psycopg psycopg_pool", "postgres"),
    "Psycopg2": ("psycopg2", "postgres"),
    "Psycopg": ("psycopg psycopg_pool", "postgres"),
    "Asyncpg": ("asyncpg", "postgres"),
    "Redis": ("redis", "redis_server"),
    "Kombu": ("kombu redis", "redis_server"),
    "Requests": ("requests", "web"),
    "Urllib3": ("urllib3", "web"),
    "HttpClient": ("http", "web"),
    "Botocore": ("botocore", "web"),
    "Httpx": ("httpx", "web"),
    "Aiohttp": ("aiohttp", "web"),
}


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Servers:
    """The servers that clients connect to."""
    return Servers(request)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server that lets everybody in."""
    programs = _postgres()
    if programs is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    directory, user, port = _directory(), None, free_port()
    data = directory / "data"
    if os.getuid() == 0:  # it refuses to run as root
        user = "postgres"
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
    subprocess.run(
        [programs / "initdb", "--no-sync", "-A", "trust", "-U", "forksafe", "-D", data],
        check=True,
        capture_output=True,
        user=user,
        cwd=directory,
    )
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": directory,
        "fsync": "off",
        "max_connections": 300,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    try:
        with _running(
            directory, str(programs / "postgres"), "-D", str(data), *options, stop="INT", user=user
        ) as log:
            wait_until(lambda: "ready to accept connections" in log.read_text(), "PostgreSQL is up")
            yield f"postgresql://forksafe@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis server that keeps nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    directory, port = _directory(), free_port()
    try:
        with _running(
            directory,
            *(program, "--port", str(port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(directory)),
        ) as log:
            wait_until(lambda: "Ready to accept connections" in log.read_text(), "Redis is up")
            yield f"redis://127.0.0.1:{port}/0"
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def web() -> Iterator[dict[str, str]]:
    """The URLs of an HTTP server and an HTTPS one, and the file with the CA's certificate."""
    trustme = pytest.importorskip("trustme", reason="needs trustme: pip install trustme")
    directory = _directory()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    try:
        with _running(
            directory, sys.executable, str(APPS / "echo_server.py"), str(directory / "server.pem")
        ) as log:
            wait_until(lambda: log.read_text().endswith("\n"), "the web servers are up")
            _, plain, tls = log.read_text().split()
            yield {
                "HTTP": f"http://127.0.0.1:{plain}",
                "HTTPS": f"https://127.0.0.1:{tls}",
                "CA": str(directory / "ca.pem"),
            }
    finally:
        shutil.rmtree(directory)
