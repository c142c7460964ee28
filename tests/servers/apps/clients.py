"""Clients that connect before a fork, one class a library.

Each asks a real server, and is told which of the server's connections it asked on.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from typing import Any, Callable, NamedTuple

POSTGRES = os.environ.get("POSTGRES", "")
REDIS = os.environ.get("REDIS_SERVER", "")
HTTP = os.environ.get("HTTP", "")
HTTPS = os.environ.get("HTTPS", "")
CA = os.environ.get("CA", "")

SQL = "select %s, pg_backend_pid()"


class Answer(NamedTuple):
    """What the server said."""

    token: str
    connection: str  # as the server knows it


class Client:
    """Asks the server; the first time when it is made."""

    def __init__(self) -> None:
        self.connect()
        self.ask("first")

    def connect(self) -> None:
        """Make what connects."""
        raise NotImplementedError

    def ask(self, token: str) -> Answer:
        """Send `token`, and return what comes back."""
        raise NotImplementedError


class Async(Client):
    """In a loop that is inherited as well; with LOOP (new, uvloop) each process has its own."""

    def __init__(self) -> None:
        self._loop, self._pid = self.new_loop(), os.getpid()
        self.run(self.aconnect())
        self.ask("first")

    def new_loop(self) -> asyncio.AbstractEventLoop:
        if os.environ.get("LOOP") == "uvloop":
            import uvloop

            return uvloop.new_event_loop()
        return asyncio.new_event_loop()

    def run(self, coroutine: Any) -> Any:
        if os.environ.get("LOOP") and self._pid != os.getpid():
            self._old = self._loop
            self._loop, self._pid = self.new_loop(), os.getpid()
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, 8))

    def ask(self, token: str) -> Answer:
        return self.run(self.aask(token))  # type: ignore[no-any-return]

    async def aconnect(self) -> None:
        """Make what connects."""

    async def aask(self, token: str) -> Answer:
        """Send `token`, and return what comes back."""
        raise NotImplementedError


def _row(row: Any) -> Answer:
    return Answer(row[0], str(row[1]))


def _body(text: str) -> Answer:
    token, connection = text.split()
    return Answer(token, connection)


# --- PostgreSQL -----------------------------------------------------------------------------------


class SQLAlchemy(Client):
    driver = "psycopg"
    options: dict[str, Any] = {}  # noqa: RUF012 - read only

    def connect(self) -> None:
        import sqlalchemy

        url = POSTGRES.replace("postgresql:", f"postgresql+{self.driver}:")
        self.engine = sqlalchemy.create_engine(url, **self.options)
        self.text = sqlalchemy.text("select cast(:token as text), pg_backend_pid()")

    def ask(self, token: str) -> Answer:
        with self.engine.connect() as connection:
            return _row(connection.execute(self.text, {"token": token}).one())


class SQLAlchemy2(SQLAlchemy):
    driver = "psycopg2"


class SQLAlchemyEcho(SQLAlchemy):
    options = {"echo_pool": "debug", "pool_size": 1, "max_overflow": 0}  # noqa: RUF012


class SQLAlchemyAsync(Async):
    driver = "psycopg"

    async def aconnect(self) -> None:
        import sqlalchemy
        from sqlalchemy.ext.asyncio import create_async_engine

        self.engine = create_async_engine(
            POSTGRES.replace("postgresql:", f"postgresql+{self.driver}:")
        )
        self.text = sqlalchemy.text("select cast(:token as text), pg_backend_pid()")

    async def aask(self, token: str) -> Answer:
        async with self.engine.connect() as connection:
            return _row((await connection.execute(self.text, {"token": token})).one())


class SQLAlchemyAsyncpg(SQLAlchemyAsync):
    driver = "asyncpg"


class Django(Client):
    database: dict[str, Any] = {"CONN_MAX_AGE": 600}  # noqa: RUF012 - read only

    def connect(self) -> None:
        from urllib.parse import urlsplit

        import django
        from django.conf import settings

        url = urlsplit(POSTGRES)
        default = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path[1:],
            "USER": url.username,
            "HOST": url.hostname,
            "PORT": url.port,
            **self.database,
        }
        settings.configure(DATABASES={"default": default})
        django.setup()

    def ask(self, token: str) -> Answer:
        from django.db import close_old_connections, connection

        with connection.cursor() as cursor:
            cursor.execute(SQL, [token])
            answer = _row(cursor.fetchone())
        close_old_connections()  # as at the end of a request
        return answer


class DjangoPool(Django):
    database = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}}  # noqa: RUF012


class PsycopgPool(Client):
    def connect(self) -> None:
        self.pool = self.make_pool()
        # One that is open at the end of a program waits 5 s for each of its threads, fork or not.
        atexit.register(self.pool.close)

    def make_pool(self) -> Any:
        from psycopg_pool import ConnectionPool

        return ConnectionPool(POSTGRES, min_size=2, max_size=4, open=True, timeout=8)

    def ask(self, token: str) -> Answer:
        with self.pool.connection() as connection:
            return _row(connection.execute(SQL, [token]).fetchone())


class PsycopgNullPool(PsycopgPool):
    def make_pool(self) -> Any:
        from psycopg_pool import NullConnectionPool

        return NullConnectionPool(POSTGRES, max_size=4, open=True, timeout=8)


class PsycopgAsyncPool(Async):
    async def aconnect(self) -> None:
        from psycopg_pool import AsyncConnectionPool

        self.pool = AsyncConnectionPool(POSTGRES, min_size=2, max_size=4, open=False, timeout=8)
        await self.pool.open()

    async def aask(self, token: str) -> Answer:
        async with self.pool.connection() as connection:
            cursor = await connection.execute(SQL, [token])
            return _row(await cursor.fetchone())


class Psycopg2Pool(Client):
    def connect(self) -> None:
        from psycopg2.pool import ThreadedConnectionPool

        self.pool = ThreadedConnectionPool(2, 8, POSTGRES)

    def ask(self, token: str) -> Answer:
        connection = self.pool.getconn()
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(SQL, [token])
                return _row(cursor.fetchone())
        finally:
            self.pool.putconn(connection)


class AsyncpgPool(Async):
    async def aconnect(self) -> None:
        import asyncpg

        self.pool = await asyncpg.create_pool(POSTGRES, min_size=2, max_size=4)

    async def aask(self, token: str) -> Answer:
        async with self.pool.acquire() as connection:
            return _row(await connection.fetchrow("select $1::text, pg_backend_pid()", token))


class Psycopg(Client):
    def connect(self) -> None:
        import psycopg

        self.connection = psycopg.connect(POSTGRES, autocommit=True)

    def ask(self, token: str) -> Answer:
        return _row(self.connection.execute(SQL, [token]).fetchone())


class PsycopgAsync(Async):
    async def aconnect(self) -> None:
        import psycopg

        self.connection = await psycopg.AsyncConnection.connect(POSTGRES, autocommit=True)

    async def aask(self, token: str) -> Answer:
        return _row(await (await self.connection.execute(SQL, [token])).fetchone())


class Psycopg2(Client):
    def connect(self) -> None:
        import psycopg2

        self.connection = psycopg2.connect(POSTGRES)
        self.connection.autocommit = True

    def ask(self, token: str) -> Answer:
        with self.connection.cursor() as cursor:
            cursor.execute(SQL, [token])
            return _row(cursor.fetchone())


# --- Redis ----------------------------------------------------------------------------------------


class Redis(Client):
    options: dict[str, Any] = {}  # noqa: RUF012 - read only

    def connect(self) -> None:
        import redis

        self.redis = redis.Redis.from_url(REDIS, decode_responses=True, **self.options)

    def ask(self, token: str) -> Answer:
        script = "return ARGV[1]"
        with self.redis.pipeline(transaction=True) as pipeline:
            found = pipeline.eval(script, 0, token).client_id().execute()
        return _row(found)


class RedisSingle(Redis):
    options = {"single_connection_client": True}  # noqa: RUF012

    def ask(self, token: str) -> Answer:
        return Answer(
            self.redis.eval("return ARGV[1]", 0, token),  # type: ignore[no-untyped-call]
            str(self.redis.client_id()),
        )


class RedisBlocking(Redis):
    """All connections of its pool but one are handed out at the fork."""

    def connect(self) -> None:
        import redis

        pool = redis.BlockingConnectionPool.from_url(
            REDIS, max_connections=3, timeout=5, decode_responses=True
        )
        self.redis = redis.Redis(connection_pool=pool)
        self.borrowed = [pool.get_connection(), pool.get_connection()]


class RedisPubSub(Client):
    """Publishes over a client, and hears it over a PubSub."""

    def connect(self) -> None:
        import redis

        self.redis = redis.Redis.from_url(REDIS, decode_responses=True)
        self.pubsub = self.redis.pubsub(ignore_subscribe_messages=True)
        self.pubsub.subscribe("news")

    def ask(self, token: str) -> Answer:
        import time

        # The first use connects, and subscribes again; others publish too.
        self.pubsub.get_message(timeout=0.01)
        self.redis.publish("news", token)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            message = self.pubsub.get_message(timeout=0.5)
            if message and message["data"] == token:
                # Its connection can ask the server nothing, who knows it by this.
                return Answer(token, str(self.pubsub.connection._sock.getsockname()))
        raise TimeoutError("no message")


class RedisAsync(Async):
    async def aconnect(self) -> None:
        import redis.asyncio

        self.redis = redis.asyncio.Redis.from_url(REDIS, decode_responses=True)

    async def aask(self, token: str) -> Answer:
        async with self.redis.pipeline(transaction=True) as pipeline:
            return _row(await pipeline.eval("return ARGV[1]", 0, token).client_id().execute())


class Kombu(Client):
    """Puts a message into a queue, and takes it out; one queue a process."""

    def connect(self) -> None:
        from kombu import Connection

        self.url = Connection(REDIS)

    def ask(self, token: str) -> Answer:
        from kombu import pools

        with pools.connections[self.url].acquire(block=True, timeout=5) as connection:
            queue = connection.SimpleQueue(f"q{os.getpid()}")
            queue.put(token)
            message = queue.get(timeout=5)
            message.ack()
            queue.close()
            return Answer(message.payload, str(connection.default_channel.client.client_id()))


# --- HTTP -----------------------------------------------------------------------------------------


class Requests(Client):
    def connect(self) -> None:
        import requests

        self.session = requests.Session()

    def ask(self, token: str) -> Answer:
        return _body(self.session.get(f"{HTTPS}/{token}", timeout=5, verify=CA).text)


class Urllib3(Client):
    def connect(self) -> None:
        import urllib3

        self.pool = urllib3.PoolManager(maxsize=4, block=True, ca_certs=CA, retries=False)

    def ask(self, token: str) -> Answer:
        return _body(self.pool.request("GET", f"{HTTPS}/{token}", timeout=5).data.decode())


class HttpClient(Client):
    def connect(self) -> None:
        import ssl
        from http.client import HTTPSConnection
        from urllib.parse import urlsplit

        self.connection = HTTPSConnection(
            urlsplit(HTTPS).netloc, timeout=5, context=ssl.create_default_context(cafile=CA)
        )

    def ask(self, token: str) -> Answer:
        self.connection.request("GET", f"/{token}")
        return _body(self.connection.getresponse().read().decode())


class Botocore(Client):
    """S3, from a server that says the same to everybody."""

    def connect(self) -> None:
        import botocore.session
        from botocore.config import Config

        self.client = botocore.session.get_session().create_client(
            "s3",
            region_name="eu-north-1",
            endpoint_url=HTTPS,
            verify=CA,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
        )

    def ask(self, token: str) -> Answer:
        body = self.client.get_object(Bucket="bucket", Key=token)["Body"].read().decode()
        return _body(body.replace("bucket/", ""))


class Httpx(Client):
    def connect(self) -> None:
        import ssl

        import httpx

        self.client = httpx.Client(verify=ssl.create_default_context(cafile=CA), timeout=5)

    def ask(self, token: str) -> Answer:
        return _body(self.client.get(f"{HTTPS}/{token}").text)


class HttpxAsync(Async):
    async def aconnect(self) -> None:
        import ssl

        import httpx

        self.client = httpx.AsyncClient(verify=ssl.create_default_context(cafile=CA), timeout=5)

    async def aask(self, token: str) -> Answer:
        return _body((await self.client.get(f"{HTTPS}/{token}")).text)


class Aiohttp(Async):
    async def aconnect(self) -> None:
        import ssl

        import aiohttp

        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=CA))
        self.session = aiohttp.ClientSession(connector=connector)

    async def aask(self, token: str) -> Answer:
        # What is not idempotent it does not send again by itself.
        async with self.session.post(f"{HTTPS}/{token}") as response:
            return _body(await response.text())


def make() -> Client:
    """Return the client that the environment names."""
    cls: Callable[[], Client] = globals()[os.environ["CLIENT"]]
    return cls()
