"""Databases: SQLite files that are open, and pools that hold connections.

SQLite is found by what its files begin with, read through the descriptor that is open already.
They must not be opened a second time: closing any descriptor of a file drops all locks that the
process has on it (fcntl(2)), and a database without its locks is soon a broken one.

A pool's connections are sockets too, and told there one by one; the pool is what to mend.
"""

from __future__ import annotations

import os
import stat

from .._hazard import ACTION, ADVICE, Hazard
from . import _loaded
from ._descriptors import descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._scene import Scene

_SQLITE_HEADER = b"SQLite format 3\0"  # sqlite.org/fileformat.html, 1.3

_ENGINES = "sqlalchemy.engine.base:Engine"
_PSYCOPG = ("psycopg_pool:ConnectionPool", "psycopg_pool:AsyncConnectionPool")
_REDIS = ("redis.connection:ConnectionPool", "redis.asyncio.connection:ConnectionPool")

WANTED = (_ENGINES, *_PSYCOPG, *_REDIS)


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    yield from _sqlite()
    for engine in scene.heap.instances(_ENGINES):
        yield from _engine(engine)
    for path in _PSYCOPG:
        for pool in scene.heap.instances(path):
            yield from _psycopg(pool)
    for path in _REDIS:
        for pool in scene.heap.instances(path):
            yield from _redis(scene, pool)


def _sqlite() -> Iterator[Hazard]:
    if not _loaded.is_loaded("_sqlite3"):
        return
    for fd in descriptors() or ():
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                continue
            if os.pread(fd, len(_SQLITE_HEADER), 0) != _SQLITE_HEADER:
                continue
        except OSError:
            continue  # closed meanwhile, or open for writing only
        name = _path(fd)
        yield Hazard(
            "database",
            ACTION,
            f"the open SQLite database {name} would be shared with the child",
            subject=name,
            detail=(
                "SQLite forbids to carry a connection across a fork: both processes would believe "
                "that they hold its locks, and the file is corrupted "
                "(sqlite.org/howtocorrupt.html, 2.6)."
            ),
            remedy="close the connection before the fork, or connect in the child",
            where=f"fd {fd}",
        )


def _path(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"(descriptor {fd})"


def _engine(engine: Any) -> Iterator[Hazard]:
    pool = getattr(engine, "pool", None)
    count = _held(pool)
    if not count or _in_memory(engine):
        return
    url = getattr(engine, "url", None)
    hide = getattr(url, "render_as_string", None)
    name = str(hide(hide_password=True)) if hide is not None else type(pool).__name__
    yield Hazard(
        "connection-pool",
        ACTION,
        f"SQLAlchemy engine {name} holds {_connections(count)} that the child would share",
        subject=name,
        detail=f"Its pool is a {type(pool).__name__}.",
        remedy=(
            "engine.dispose() before the fork; or in the child engine.dispose(close=False): "
            "multiprocessing.util.register_after_fork(engine, lambda e: e.dispose(close=False))"
        ),
        where=_where(engine),
    )


def _in_memory(engine: Any) -> bool:
    """A SQLite database in memory is the child's own copy."""
    if getattr(getattr(engine, "dialect", None), "name", "") != "sqlite":
        return False
    return getattr(getattr(engine, "url", None), "database", None) in (None, "", ":memory:")


def _held(pool: Any) -> int:
    """Count the connections of a SQLAlchemy pool, without its methods, which take its lock."""
    for count in (_queue_pool, _set_pool, _one_pool):
        held = count(pool)
        if held is not None:
            return held
    return 0


def _queue_pool(pool: Any) -> int | None:
    queue = getattr(pool, "_pool", None)
    overflow = getattr(pool, "_overflow", None)
    size = getattr(queue, "maxsize", None)
    if not isinstance(overflow, int) or not isinstance(size, int):
        return None
    # The overflow starts at minus the size, and counts every connection that is open.
    return max(0, overflow + size)


def _set_pool(pool: Any) -> int | None:
    connections = getattr(pool, "_all_conns", None)
    return len(connections) if connections is not None else None


def _one_pool(pool: Any) -> int | None:
    # Not getattr(): StaticPool's `connection` connects when it is asked for.
    values = getattr(pool, "__dict__", {})
    return int(values.get("connection") is not None or values.get("_conn") is not None)


def _psycopg(pool: Any) -> Iterator[Hazard]:
    if getattr(pool, "_closed", True):
        return
    name = str(getattr(pool, "name", "?"))
    count = len(getattr(pool, "_pool", ()))
    yield Hazard(
        "connection-pool",
        ACTION,
        f"psycopg_pool's {name!r} is open, with {_connections(count)} to hand out; "
        "in the child it has no workers",
        subject=name,
        detail=(
            "Its worker threads would be gone in the child, and its connections shared with the "
            "parent: getconn() there hands out the parent's, then times out."
        ),
        remedy="make the pool with open=False, and pool.open() in the child",
        where=_where(pool),
    )


def _redis(scene: Scene, pool: Any) -> Iterator[Hazard]:
    idle, busy = _of_redis(pool)
    open_ = [c for c in idle if _is_open(c)]
    lent = [c for c in busy if _is_open(c)]
    if not open_ and not lent:
        return
    options = getattr(pool, "connection_kwargs", {})
    name = str(options.get("path") or f"{options.get('host')}:{options.get('port')}")
    # Since 3.4 the pool looks at its pid first, and starts afresh; what was handed out stays with
    # whoever has it. The asyncio pool belongs to its loop, and looks at nothing.
    looks = hasattr(type(pool), "_checkpid")
    if looks:
        scene.dropped.update(id(connection) for connection in open_)
    severity = ADVICE if looks and not lent else ACTION
    yield Hazard(
        "connection-pool",
        severity,
        f"redis-py's pool for {name} holds {_connections(len(open_) + len(lent))}, "
        f"{len(lent)} of them handed out",
        subject=name,
        detail=(
            "A pool of redis-py starts afresh in a child, by itself, when it is next used. What "
            "was handed out before (a pubsub(), a pipeline, a blocked thread) is shared."
            if looks
            else "This pool does not notice a fork."
        ),
        remedy=(
            "none needed: the pool opens its own connections in the child"
            if severity == ADVICE
            else "close pubsubs, pipelines and clients before the fork, or make them in the child"
        ),
        where=_where(pool),
    )


def _of_redis(pool: Any) -> tuple[list[Any], list[Any]]:
    """Return the connections that wait in the pool, and those that are handed out."""
    idle = getattr(pool, "_available_connections", None)
    if idle is not None:
        return list(idle), list(getattr(pool, "_in_use_connections", ()))
    # A BlockingConnectionPool lists all, and has those that wait in a queue.
    waiting = {id(c) for c in list(getattr(getattr(pool, "pool", None), "queue", ()))}
    every = list(getattr(pool, "_connections", ()))
    return (
        [connection for connection in every if id(connection) in waiting],
        [connection for connection in every if id(connection) not in waiting],
    )


def _is_open(connection: Any) -> bool:
    return any(getattr(connection, name, None) is not None for name in ("_sock", "_writer"))


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _where(thing: Any) -> str:
    return f"{type(thing).__module__}:{type(thing).__qualname__}"
