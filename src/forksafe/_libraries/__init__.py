"""What is known of libraries that a fork hurts: one table, one row a library. Add a row.

The audit reads it; the steps read `_connections` beside it, so nothing heavy is imported here.
"""

from __future__ import annotations

import os

from .._fork_event._typing import Any


class Library:
    """What one library has that a fork hurts, and what to tell the user about it.

    Strings hold several words, separated by spaces; patterns are matched as file names are.
    """

    # Its threads: by the function they started with; else modules whose code they run; else names.
    targets = modules = names = ""
    # What shows that it restarts them: ``module:name``, or their owner's attribute; just idle ones.
    restarts, idle = "", False
    answered_by = ""  # the hazards that answer for its threads: patterns of an allow-list
    natives = ""  # patterns of the names of its native threads, which Linux cuts at 15 bytes
    mapped = ""  # a part of the name of the shared object that starts threads without a name
    # Modules that are hazards, of `kind`, with `trouble`; "action" where `state` is true.
    loaded = trouble = state = ""
    kind = "module"
    prepared = ""  # an environment variable, "=", and the values that prepare the library
    # Classes with a connected socket; after the last dot its attribute, if any. The first counts.
    connections = ""

    def __init__(self, name: str, remedy: str, **more: Any) -> None:
        self.name = name
        # With "none needed" the library itself does what a fork calls for.
        self.severity: Any = "advice" if remedy.startswith("none needed") else "action"
        self.remedy = self.connect = remedy  # `connect`: about a connection
        vars(self).update(more)

    @property
    def settled(self) -> str:
        """The setting in the environment that prepares the library for forks, or ""."""
        name, _, values = self.prepared.partition("=")
        value = os.environ.get(name, "").lower()
        return f"{name}={value}" if value in values.split() else ""


UNKNOWN = Library("", "start it after the fork: in the worker's start-up hook, or with "
                  "multiprocessing.util.register_after_fork(owner, restart)",
                  connect="close it before the fork, or open it in the child")  # fmt: skip
_NOTHING = "nothing under forksafe: "
_HANGS = "its Rust thread pool hangs in a child once it was used in the parent"
_CUDA = "use CUDA in the child only, or multiprocessing's spawn method"
_CHILD = "connect in the child"
_KAFKA = "make the producer or consumer in the child"
_HTTP = "close the session or connection before the fork, or make one in each process"
_MYSQL = f"{_CHILD}; one inherited must not be closed there, for it says goodbye for both"
_POSTGRES = f"{_CHILD}; to close() an inherited one there ends the parent's session, too"

# fmt: off
LIBRARIES = (
    # --- the standard library
    Library("concurrent.futures.ThreadPoolExecutor", _NOTHING + "it works in the child, with "
            "threads of its own", targets="concurrent.futures.thread:_worker",
            answered_by="executor:ThreadPoolExecutor* interpreter"),
    Library("concurrent.futures.ProcessPoolExecutor", "make the executor in the child",
            targets="concurrent.futures.process:_ExecutorManagerThread.run",
            answered_by="executor:ProcessPoolExecutor"),
    Library("multiprocessing.Pool", "make the pool in the child", answered_by="pool",
            targets="multiproces*.pool:Pool._handle_* multiproces*.pool:worker "
            "billiard.pool:PoolThread.run billiard.pool:Worker*"),
    Library("multiprocessing.Queue", _NOTHING + "the child's queue starts a feeder of its own",
            answered_by="queue", targets="multiproces*.queues:Queue._feed "
            "billiard.queues:Queue._feed *loky.backend.queues:Queue._feed"),
    Library("multiprocessing", "let one process read and one write; a manager's proxies connect by "
            "themselves", connections="multiprocessing.connection:Connection._handle"),
    Library("logging.handlers.QueueListener", "stop() the listener before the fork and start() it "
            "in both processes, or let the children log into a multiprocessing.Queue that it reads",
            modules="logging.handlers"),
    Library("logging.handlers.SysLogHandler", "none needed: a record is one message, whoever sends "
            "it", connections="logging.handlers:SysLogHandler.socket"),
    Library("logging.handlers.SocketHandler", "close the handler's socket before the fork: the "
            "next record opens another", connections="logging.handlers:SocketHandler.sock"),
    # --- databases
    Library("Django", "django.db.connections.close_all() before the fork: each process connects "
            "anew", connections="django.db.backends.base.base:BaseDatabaseWrapper.connection"),
    Library("SQLAlchemy", "engine.dispose() before the fork; or for the child "
            "multiprocessing.util.register_after_fork(engine, lambda e: e.dispose(close=False))"),
    Library("psycopg_pool", "make the pool with open=False, and pool.open() in the child: there it "
            "has no workers", modules="psycopg_pool", answered_by="connection-pool:psycopg_pool"),
    Library("psycopg", _POSTGRES),
    Library("psycopg2", _POSTGRES),
    Library("asyncpg", "make connections and pools in the child, in the child's own loop"),
    Library("PyMySQL", _MYSQL, connections="pymysql.connections:Connection._sock"),
    Library("mysqlclient", _MYSQL, connections="MySQLdb.connections:Connection."),
    Library("MySQL Connector", _MYSQL, connections="mysql.connector.network:MySQLSocket.sock"),
    Library("PyMongo", "make the MongoClient in the child, or with connect=False and no use before "
            "the fork", modules="pymongo", names="pymongo_*", connections="pymongo.network_layer:"
            "NetworkingInterface.conn pymongo.pool:Connection.conn"),
    Library("redis-py", "start run_in_thread() and the like in the child", modules="redis",
            connect="close pubsubs, pipelines and clients before the fork, or make them in the "
            "child; or multiprocessing.util.register_after_fork(pool, lambda p: p.reset())"),
    Library("pymemcache", "close() the client before the fork: its next use connects",
            connections="pymemcache.client.base:Client.sock"),
    Library("duckdb or lmdb", "open it in the child", loaded="duckdb lmdb",
            trouble="a database opened before the fork is unusable in the child"),
    # --- HTTP, messages, other protocols
    Library("urllib3", _HTTP, connections="urllib3.connection:HTTPConnection.sock"),
    Library("http.client", _HTTP),
    Library("httpcore", _HTTP),
    Library("aiohttp", "make the ClientSession in the child, in the child's own loop"),
    Library("gRPC", "make channels and servers in the child; or close them before the fork and set "
            "GRPC_ENABLE_FORK_SUPPORT=1 before the first import of grpc", modules="grpc",
            loaded="grpc", natives="grpc_* event_engine lifeguard default-executo resolver-execut "
            "timer_manager", trouble="channels made before a fork do not work in the child without "
            "its fork support", prepared="GRPC_ENABLE_FORK_SUPPORT=1 true yes"),
    Library("pika", _CHILD, modules="pika",
            connections="pika.adapters.utils.nbio_interface:AbstractStreamTransport._sock"),
    Library("py-amqp", _CHILD),
    Library("kafka-python", _KAFKA + "; close() one made before", modules="kafka",
            names="kafka-python-*", connections="kafka.conn:BrokerConnection._sock"),
    Library("confluent-kafka", _KAFKA, modules="confluent_kafka", natives="rdk:*"),
    Library("Paramiko", "connect in the child: the transport is its thread", modules="paramiko",
            connections="paramiko.transport:Transport.sock"),
    Library("asyncio", "open it in the child, in the child's own loop",
            connections="asyncio.selector_events:_SelectorTransport._sock"),
    # --- logs, metrics, errors
    Library("OpenTelemetry", "set up the provider and its processors in the child (Gunicorn: "
            "post_fork); a recent SDK restarts this thread itself, with the resource and exporter "
            "of the parent", modules="opentelemetry", names="Otel*", restarts="_at_fork_reinit"),
    Library("sentry-sdk", "none needed: sentry-sdk starts it again at the child's first event. "
            "Both processes send what waits in its queue: sentry_sdk.flush() before the fork, or "
            "sentry_sdk.init() in the child", modules="sentry_sdk", names="sentry-sdk.* sentry.*"),
    Library("loguru", "none needed: children hand their records to it, through its own queue",
            targets="loguru._handler:Handler._queued_writer"),
    Library("prometheus_client", "call start_http_server() in one process only, with "
            "prometheus_client.multiprocess.MultiProcessCollector for the numbers of all",
            modules="prometheus_client"),
    Library("ddtrace", "import ddtrace.auto (or run under ddtrace-run) before all else: it "
            "restarts its threads then", modules="ddtrace", names="ddtrace* *:ddtrace*"),
    Library("New Relic", "register_application() in the child (post_fork)", modules="newrelic"),
    Library("LaunchDarkly", "ldclient.get().postfork() in the child (9.8+)", modules="ldclient"),
    Library("PostHog", "make the client in the child, or sync_mode=True", modules="posthog"),
    Library("tqdm", "none needed: set tqdm.monitor_interval = 0 to do without", modules="tqdm"),
    # --- work in the background
    Library("joblib (loky)", "joblib.externals.loky.get_reusable_executor().shutdown(wait=True) "
            "before the fork", modules="joblib.externals.loky loky"),
    Library("trio", "let trio's threads finish before the fork: idle ones need nothing",
            modules="trio._core._thread_cache", idle=True,
            restarts="trio._core._thread_cache:clear_worker_threads"),
    Library("APScheduler", "call scheduler.start() after the fork, and in one process only",
            modules="apscheduler", names="APScheduler"),
    Library("watchdog", "start the Observer in one process, after the fork", modules="watchdog"),
    Library("Celery beat", "run beat as a process of its own", modules="celery.beat"),
    Library("Gunicorn", "none needed: Gunicorn stops it at the fork", natives="gunicorn*"),
    # --- threads and state of C, C++ and Rust
    Library("numpy", "numpy.random.seed() in the child, or a Generator made there by "
            "numpy.random.default_rng()", loaded="numpy.random.mtrand", kind="random-state",
            trouble="all children draw the same numbers, from its global generator and from each "
            "Generator made before the fork"),
    Library("OpenBLAS", "none needed: it restarts them at a fork; OPENBLAS_NUM_THREADS=1 does "
            "without", mapped="openblas"),
    Library("GNU OpenMP", "run no parallel region before the fork (OMP_NUM_THREADS=1): libgomp "
            "hangs in the child", mapped="libgomp"),
    Library("Intel OpenMP", "run no parallel region before the fork", mapped="libiomp5"),
    Library("jemalloc", "none needed: jemalloc restarts it", natives="jemalloc_bg_thd"),
    Library("libuv", "start the loop in the child", natives="libuv-worker"),
    Library("CUDA", _CUDA, natives="cuda*", loaded="cupy_backends.cuda.api.runtime",
            trouble="CUDA, once used, cannot be used in a forked child"),
    Library("PyTorch", _CUDA, loaded="torch.cuda", state="torch.cuda:_initialized", trouble="CUDA "
            "is initialised, and cannot be used in a forked child"),
    Library("TensorFlow", "use it first in the child", loaded="tensorflow", trouble="native "
            "threads that it starts at first use are gone in the child"),
    Library("Arrow", "use pyarrow only after the fork", natives="arrow*", loaded="pyarrow",
            trouble="its thread pools, once used, are not started again in the child"),
    Library("tokenizers", "set TOKENIZERS_PARALLELISM=false, or use it in the child",
            loaded="tokenizers", prepared="TOKENIZERS_PARALLELISM=false 0", trouble=_HANGS),
    Library("a Rust runtime", "use the library (polars, lance, tokio, rayon) only after the fork, "
            "or spawn", natives="tokio-* polars-* rayon* lance*", loaded="polars lance lancedb",
            trouble=_HANGS),
)
# fmt: on
