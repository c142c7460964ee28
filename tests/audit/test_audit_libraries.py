"""The audit with the real libraries: whose thread, socket or pool it is, and what to write."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fresh import LINUX, Found, hazards, needs, value


def opentelemetry() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    import forksafe

    tracing = TracerProvider()
    tracing.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    metrics = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter(), 1e6)])
    assert tracing and metrics
    return forksafe.audit()


@needs("opentelemetry.sdk", "opentelemetry-sdk")
def test_opentelemetry() -> None:
    """Its threads are known by target, whatever their names; a recent SDK restarts them itself."""
    threads = hazards(opentelemetry).of("thread")
    assert len(threads) == 2
    for found in threads:
        assert found.where.startswith("opentelemetry.sdk.")
        assert "OpenTelemetry" in found.summary
        assert "post_fork" in found.remedy
        assert found.severity == "advice"
        assert "which is prepared for that" in found.summary


def opentelemetry_restarts() -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    import forksafe

    tracing = TracerProvider()
    tracing.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    read, write = os.pipe()
    pid = forksafe.safe_fork()
    if pid == 0:
        import threading

        names = [t.name for t in threading.enumerate() if "Otel" in t.name and t.is_alive()]
        os.write(write, str(len(names)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return int(os.read(read, 10))


@needs("opentelemetry.sdk", "opentelemetry-sdk")
def test_opentelemetry_does_restart_its_thread() -> None:
    """That it is advice, and no action, is true of the SDK that is installed."""
    assert value(opentelemetry_restarts) == 1


def sentry() -> Any:
    import sentry_sdk

    import forksafe

    sentry_sdk.init("http://key@127.0.0.1:9/1", shutdown_timeout=0)
    sentry_sdk.capture_message("hello")
    return forksafe.audit()


@needs("sentry_sdk", "sentry-sdk")
def test_sentry() -> None:
    """It notices a fork by its pid, and starts its worker again."""
    found = hazards(sentry).one("thread", "sentry-sdk.BackgroundWorker")
    assert found.severity == "advice"
    assert found.where == "sentry_sdk.worker:BackgroundWorker._target"
    assert "sentry-sdk" in found.summary
    assert "sentry_sdk.flush()" in found.remedy


def wait_for(go: Any) -> None:
    go.wait()


def sentry_and_a_thread() -> Any:
    import threading

    import sentry_sdk

    import forksafe

    sentry_sdk.init("http://key@127.0.0.1:9/1", shutdown_timeout=0)
    sentry_sdk.capture_message("hello")
    go = threading.Event()

    class Subclass(threading.Thread):
        def run(self) -> None:
            go.wait()

    threading.Thread(target=wait_for, args=(go,), name="target", daemon=True).start()
    Subclass(name="subclass", daemon=True).start()
    return forksafe.audit()


@needs("sentry_sdk", "sentry-sdk")
def test_sentry_does_not_start_the_programs_threads_again() -> None:
    """Its integration for threading has a frame in every thread, and that makes none its own."""
    answer = hazards(sentry_and_a_thread)
    for name, where in (
        ("target", "program:wait_for"),
        ("subclass", "program:sentry_and_a_thread.<locals>.Subclass.run"),
    ):
        found = answer.one("thread", name)
        assert (found.severity, found.where) == ("action", where)
        assert "sentry" not in found.summary + found.remedy
    assert answer.one("thread", "sentry-sdk.BackgroundWorker").severity == "advice"


def apscheduler() -> Any:
    from apscheduler.schedulers.background import BackgroundScheduler

    import forksafe

    BackgroundScheduler().start()
    return forksafe.audit()


@needs("apscheduler", "apscheduler")
def test_apscheduler() -> None:
    found = hazards(apscheduler).one("thread")
    assert found.severity == "action"
    assert found.subject == "APScheduler"
    assert found.where.startswith("apscheduler.schedulers.")
    assert "after the fork" in found.remedy


def psycopg_pool() -> Any:
    from psycopg_pool import ConnectionPool

    import forksafe

    pool = ConnectionPool("host=127.0.0.1 port=9", min_size=1, num_workers=2, open=True, name="db")
    assert pool
    return forksafe.audit()


@needs("psycopg_pool", "'psycopg[binary,pool]'")
def test_psycopg_pool() -> None:
    """The pool needs action, and answers for each of its threads."""
    answer = hazards(psycopg_pool)
    found = answer.one("connection-pool")
    assert found.severity == "action"
    assert found.subject == "db"
    assert found.where == "psycopg_pool.pool:ConnectionPool"
    assert "open=False" in found.remedy
    threads = answer.of("thread")
    assert len(threads) >= 3  # two workers and the scheduler
    for thread in threads:
        assert thread.severity == "advice"
        assert thread.where.startswith("psycopg_pool.")
        assert "as the connection-pool tells" in thread.summary
        assert "open=False" in thread.remedy


def psycopg_pool_not_open() -> Any:
    from psycopg_pool import ConnectionPool

    import forksafe

    pool = ConnectionPool("host=127.0.0.1 port=9", open=False)
    assert pool
    return forksafe.audit()


@needs("psycopg_pool", "'psycopg[binary,pool]'")
def test_psycopg_pool_as_the_remedy_has_it() -> None:
    answer = hazards(psycopg_pool_not_open)
    assert not answer.actions, answer


def mongo() -> Any:
    import pymongo

    import forksafe

    client = pymongo.MongoClient("127.0.0.1", 9, serverSelectionTimeoutMS=100)
    try:
        client.admin.command("ping")
    except pymongo.errors.ServerSelectionTimeoutError:
        pass
    return forksafe.audit()


@needs("pymongo", "pymongo")
def test_pymongo() -> None:
    """Its monitors run as soon as a client is made; there need not be a server."""
    threads = hazards(mongo).of("thread")
    assert threads
    for found in threads:
        assert found.severity == "action"
        assert found.subject.startswith("pymongo_")
        assert found.where.startswith("pymongo.")
        assert "MongoClient in the child" in found.remedy


def grpc() -> Any:
    import grpc

    import forksafe

    channel = grpc.insecure_channel("127.0.0.1:9")
    try:
        grpc.channel_ready_future(channel).result(timeout=0.5)
    except grpc.FutureTimeoutError:
        pass
    return forksafe.audit()


@needs("grpc", "grpcio")
@pytest.mark.skipif(not LINUX, reason="only Linux lists native threads")
def test_grpc() -> None:
    """Loaded, with its environment; its native threads, by the names it gives them."""
    answer = hazards(grpc)
    module = answer.one("module", "grpc")
    assert module.severity == "advice"
    assert module.where == "grpc"
    assert "GRPC_ENABLE_FORK_SUPPORT" in module.detail
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in module.remedy
    native = [h for h in answer.of("native-thread") if "gRPC" in h.summary]
    assert {"event_engine", "grpc_global_tim"} & {h.subject for h in native}, answer
    for found in native:
        assert found.severity == "action"
        assert found.where.startswith("tid ")
        assert "GRPC_ENABLE_FORK_SUPPORT=1" in found.remedy
    for thread in answer.of("thread"):
        assert "gRPC" in thread.summary, thread


def engine(url: str) -> Any:
    import os
    import tempfile

    import sqlalchemy

    import forksafe

    if url == "file":
        url = f"sqlite:///{os.path.realpath(tempfile.mkdtemp())}/my.db"
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("create table t (x)"))
        connection.commit()
    answer = forksafe.audit()
    engine.dispose()
    disposed = forksafe.audit()[0].severity != "action"
    return [*answer, *(["disposed"] if disposed else [])]


@needs("sqlalchemy", "sqlalchemy")
def test_sqlalchemy() -> None:
    """An engine whose pool holds a connection; one that is disposed of needs nothing."""
    *rest, last = value(engine, "file")
    assert last == "disposed"
    answer = [Found(**fields) for fields in rest]
    (pool,) = (h for h in answer if h.kind == "connection-pool")
    assert pool.severity == "action"
    assert pool.where == "sqlalchemy.engine.base:Engine"
    assert pool.subject.endswith("my.db")
    assert "1 connection " in pool.summary
    assert "dispose(close=False)" in pool.remedy
    (database,) = (h for h in answer if h.kind == "database")
    assert database.severity == "action"


@needs("sqlalchemy", "sqlalchemy")
def test_sqlalchemy_in_memory() -> None:
    """A database in memory is the child's own copy."""
    assert not [
        h for h in value(engine, "sqlite://") if "kind" in h and h["kind"] == "connection-pool"
    ]


def http_session(url: str) -> Any:
    import requests

    import forksafe

    session = requests.Session()
    session.get(url).raise_for_status()
    answer = forksafe.audit()
    session.close()
    assert not [h for h in forksafe.audit() if h.kind == "socket"]
    return answer


@needs("requests", "requests")
def test_requests(http_server: str) -> None:
    """The connection that a session keeps alive is urllib3's; closing the session ends it."""
    found = hazards(http_session, http_server).one("socket")
    assert found.severity == "action"
    assert found.where.endswith("urllib3.connection:HTTPConnection")
    assert found.subject == http_server.split("/")[2]
    assert "urllib3" in found.summary
    assert "close the session" in found.remedy


def redis_idle(port: str) -> Any:
    import redis

    import forksafe

    client = redis.Redis(port=int(port))
    client.ping()
    return forksafe.audit()


@needs("redis", "redis")
def test_redis(redis_server: str) -> None:
    """A pool with idle connections starts afresh in the child by itself."""
    answer = hazards(redis_idle, redis_server)
    pool = answer.one("connection-pool")
    assert pool.severity == "advice"
    assert pool.where == "redis.connection:ConnectionPool"
    assert pool.subject.endswith(f":{redis_server}")
    assert "none needed" in pool.remedy
    assert not answer.of("socket"), "the connection is told by its pool"
    assert not answer.actions, answer


def redis_is_dropped(port: str) -> Any:
    import redis

    import forksafe

    client = redis.Redis(port=int(port), protocol=2)
    mine = client.client_id()
    read, write = os.pipe()
    pid = forksafe.safe_fork()
    if pid == 0:
        os.write(write, str(client.client_id()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return [mine, int(os.read(read, 20)), client.client_id()]


@needs("redis", "redis")
def test_redis_does_drop_its_idle_connections(redis_server: str) -> None:
    """That it is advice is true: the child has a connection of its own, the parent keeps its."""
    parent, child, after = value(redis_is_dropped, redis_server)
    assert parent == after != child


def redis_pubsub(port: str) -> Any:
    import redis

    import forksafe

    pubsub = redis.Redis(port=int(port)).pubsub()
    pubsub.subscribe("channel")
    pubsub.get_message(timeout=10)
    return forksafe.audit()


@needs("redis", "redis")
def test_redis_pubsub(redis_server: str) -> None:
    """A connection that is handed out is shared."""
    answer = hazards(redis_pubsub, redis_server)
    found = answer.one("connection-pool")
    assert found.severity == "action"
    assert "close pubsubs" in found.remedy
    assert not answer.of("socket"), "the connection is told by its pool"


def redis_blocking(port: str, lent: str) -> Any:
    import redis

    import forksafe

    pool = redis.BlockingConnectionPool(port=int(port), max_connections=2)
    redis.Redis(connection_pool=pool).ping()
    connection = pool.get_connection() if lent else None
    answer = forksafe.audit()
    assert connection or not lent
    return answer


@needs("redis", "redis")
@pytest.mark.parametrize(("lent", "severity"), [("", "advice"), ("one", "action")])
def test_redis_blocking_pool(redis_server: str, lent: str, severity: str) -> None:
    """It keeps its connections in another way, and is told as the other pool is."""
    answer = hazards(redis_blocking, redis_server, lent)
    pool = answer.one("connection-pool")
    assert pool.severity == severity
    assert pool.where == "redis.connection:BlockingConnectionPool"
    assert pool.subject.endswith(f":{redis_server}")
    assert "holds 1 connection " in pool.summary
    assert not answer.of("socket"), "the connection is told by its pool"


def numpy() -> Any:
    import numpy.random

    import forksafe

    numpy.random.random()
    return forksafe.audit()


@needs("numpy", "numpy")
def test_numpy() -> None:
    """Its global generator is the same in all children; OpenBLAS's threads it looks after."""
    answer = hazards(numpy)
    found = answer.one("random-state")
    assert found.severity == "advice"
    assert found.where == "numpy.random.mtrand"
    assert "default_rng()" in found.remedy
    assert not answer.actions, answer
    for native in answer.of("native-thread"):
        assert "OpenBLAS" in native.summary


def flask() -> Any:
    import flask

    import forksafe

    app = flask.Flask("clean")

    @app.get("/")
    def index() -> str:
        return "hello"

    assert app.test_client().get("/").text == "hello"
    return forksafe.audit()


@needs("flask", "flask")
def test_a_clean_flask_application() -> None:
    """It has nothing to do."""
    answer = hazards(flask)
    assert not answer.actions, answer
