"""How a child lets go of the connections that it had in the parent: a table, one row a class.

First we cut the descriptor: in the child alone, its number goes to a socket whose peer is closed,
as if the server had hung up. So no goodbye (``PQfinish()``, ``shutdown()``, TLS's close_notify)
reaches the parent's conversation. If we closed the descriptor, its number would go to the child's
next file, and the goodbye into that. Then the library forgets the connection, and connects anew
when next used. A database's single connection cannot: its use in the child fails at once, with the
library's error for a lost one. We keep what is forgotten (`KEPT`): to collect it would run code.
"""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

from .._fork_event import KEPT, expect
from .._fork_event._typing import Any


class Row:
    """How a child lets go of the instances of one class, "module:Class", and of its subclasses.

    `socket` returns a descriptor, an object with fileno(), or None if closed; `forget` makes the
    next use connect anew; `anchors`, of a static C class, returns what its instances refer to.
    """

    def __init__(self, library: str, path: str, socket: Any = None, forget: Any = None,
                 anchors: Any = None) -> None:  # fmt: skip
        self.library, self.path, self.anchors = library, path, anchors
        self.socket, self.forget = socket, forget


def _expect(thing: Any, *names: str) -> None:
    """Raise `UnknownLayout` unless `thing` has attributes of these names."""
    for name in names:
        expect(hasattr(thing, name), f"{type(thing).__qualname__} has no {name}")


def _replace(thing: Any, **new: Any) -> None:
    """Set attributes that `thing` has, and keep their old values alive."""
    _expect(thing, *new)
    KEPT.append([getattr(thing, name) for name in new])
    for name, value in new.items():
        setattr(thing, name, value)


def _engine(engine: Any) -> None:
    # As engine.dispose(close=False), less its log record and its event, which the program hears.
    pool = engine.pool
    _expect(pool, "logger", "recreate")
    if is_in_memory(engine):
        return  # the child has a copy of its own
    logger, pool.logger = pool.logger, SimpleNamespace(info=lambda *args: None)
    try:
        engine.pool = pool.recreate()
    finally:
        pool.logger = logger
    KEPT.append(pool)


def is_in_memory(engine: Any) -> bool:
    name, mode = engine.url.database or ":memory:", engine.url.query.get("mode")
    return bool(engine.dialect.name == "sqlite" and (":memory:" in name or mode == "memory"))


def _django(wrapper: Any) -> None:
    _expect(wrapper, "connection", "in_atomic_block", "closed_in_transaction", "needs_rollback")
    if wrapper.connection is None or (wrapper.vendor == "sqlite" and wrapper.is_in_memory_db()):
        return
    if wrapper.in_atomic_block:
        wrapper.closed_in_transaction = wrapper.needs_rollback = True
    else:
        _replace(wrapper, connection=None)


_POOL = {"_closed": True, "_opened": False, "_growing": False, "_pool_full_event": None,
         "_sched_runner": None}  # fmt: skip


def _psycopg_pool(pool: Any) -> None:
    # As before it was opened: the first use starts its threads, or tasks, where they are needed.
    if pool.closed:
        return
    state = vars(pool)
    _expect(pool, *_POOL, "_lock", "_pool", "_waiting", "_workers", "_nconns", "_nconns_min")
    _expect(pool, "_open", "_check_open_getconn")
    KEPT.append(dict(state))
    is_async = hasattr(pool, "__aenter__")
    for task in (*pool._workers, pool._sched_runner) if is_async else ():
        # A task may be about to connect, and would do so in both processes.
        if task is not None and not task.get_loop().is_closed():
            task.cancel()
    state.update(_POOL, _workers=[], _nconns=pool._min_size, _nconns_min=pool._min_size)
    state["_pool"], state["_waiting"] = type(pool._pool)(), type(pool._waiting)()
    if is_async:
        del pool._lock  # one of the other loop: open() makes another
    else:
        pool._lock = threading.Lock()

    def open_first() -> None:
        if not pool._opened:
            (pool._open if is_async else pool.open)()
        state.pop("_check_open_getconn", None)
        pool._check_open_getconn()

    state["_check_open_getconn"] = open_first


def _psycopg2_pool(pool: Any) -> None:
    _replace(pool, _pool=[])
    if hasattr(pool, "_lock"):
        pool._lock = threading.Lock()


def _asyncpg_holder(holder: Any) -> None:
    if holder._in_use is None and holder._con is not None:
        _replace(holder, _con=None)


# Connections of pipelines that WATCH. A new one would lose that in silence; redis-py reports a cut.
_watching: list[Any] = []


def _redis_pipeline(pipeline: Any) -> None:
    if pipeline.watching and pipeline.connection is not None:
        _watching.append(pipeline.connection)


def _redis(connection: Any) -> None:
    if not any(watched is connection for watched in _watching):
        is_async = hasattr(connection, "_writer")
        _replace(connection, **dict.fromkeys(("_reader", "_writer") if is_async else ("_sock",)))


def _http(connection: Any) -> None:
    # close() would close the response as well, and wait for the thread that reads it.
    _replace(connection, _HTTPConnection__response=None)
    connection.close()


def _urllib3_pool(pool: Any) -> None:
    if pool.pool is not None and pool.block:
        # What another thread had borrowed does not come back.
        _replace(pool.pool, queue=type(pool.pool.queue)([None] * pool.pool.maxsize))


def _httpcore_pool(pool: Any) -> None:
    # Requests without a connection wait in the parent's threads. Others go as responses end.
    requests = [request for request in pool._requests if request.connection is not None]
    lock = type(pool._optional_thread_lock)()
    _replace(pool, _connections=[], _requests=requests, _optional_thread_lock=lock)


def _aiohttp(connector: Any) -> None:
    KEPT.append(connector._conns.copy())
    connector._conns.clear()


def _codecs() -> list[Any]:
    """Return the decoders that have been looked up: a connection of psycopg2 refers to its own."""
    cache = vars(sys.modules["encodings"])["_cache"]
    return [codec.decode for codec in list(cache.values()) if codec is not None]


def _of_postgres(connection: Any) -> Any:
    return None if connection.closed else connection.fileno()


def _of_transport(transport: Any) -> Any:
    """Return the socket of an asyncio transport, uvloop's and TLS ones too, or of a stream."""
    return None if transport is None else transport.get_extra_info("socket")


ROWS = (
    Row("SQLAlchemy", "sqlalchemy.engine.base:Engine", forget=_engine),
    Row("Django", "django.db.backends.base.base:BaseDatabaseWrapper", forget=_django),
    Row("psycopg", "psycopg.connection:Connection", _of_postgres),
    Row("psycopg", "psycopg.connection_async:AsyncConnection", _of_postgres),
    Row("psycopg_pool", "psycopg_pool.pool:ConnectionPool", forget=_psycopg_pool),
    Row("psycopg_pool", "psycopg_pool.pool_async:AsyncConnectionPool", forget=_psycopg_pool),
    Row("psycopg2", "psycopg2.extensions:connection", _of_postgres, anchors=_codecs),
    Row("psycopg2", "psycopg2.pool:AbstractConnectionPool", forget=_psycopg2_pool),
    Row("asyncpg", "asyncpg.connection:Connection", lambda c: _of_transport(c._transport)),
    Row("asyncpg", "asyncpg.pool:PoolConnectionHolder", forget=_asyncpg_holder),
    Row("redis-py", "redis.client:Pipeline", forget=_redis_pipeline),
    Row("redis-py", "redis.asyncio.client:Pipeline", forget=_redis_pipeline),
    Row("redis-py", "redis.connection:AbstractConnection", lambda c: c._sock, _redis),
    Row("redis-py", "redis.asyncio.connection:AbstractConnection",
        lambda c: _of_transport(c._writer), _redis),
    Row("http.client", "http.client:HTTPConnection", lambda c: c.sock, _http),  # urllib3's too
    Row("urllib3", "urllib3.connectionpool:HTTPConnectionPool", forget=_urllib3_pool),
    Row("httpcore", "httpcore._backends.sync:SyncStream", _of_transport),
    Row("httpcore", "httpcore._backends.sync:TLSinTLSStream", _of_transport),
    Row("httpcore", "httpcore._backends.anyio:AnyIOStream", _of_transport),
    Row("httpcore", "httpcore._sync.connection_pool:ConnectionPool", forget=_httpcore_pool),
    Row("httpcore", "httpcore._async.connection_pool:AsyncConnectionPool", forget=_httpcore_pool),
    # Kombu has its pools closed in the child, by a callback that shuts these down for both.
    Row("py-amqp", "amqp.transport:_AbstractTransport", lambda t: t.sock),
    Row("aiohttp", "aiohttp.client_proto:ResponseHandler", lambda p: _of_transport(p.transport)),
    Row("aiohttp", "aiohttp.connector:BaseConnector", forget=_aiohttp),
)  # fmt: skip
