"""Well-known owners of background threads, and what to do about each. A table: add a line.

`severity` is ``action`` unless the library is known to start its thread again by itself in the
child. Where only some versions do, `restarts` names the attribute, of the object whose method the
thread runs, that tells; then it is ``advice``.

Where one of forksafe's steps answers for the thread, `answered_by` matches the step's own hazards,
as patterns of the allow-list. There the very function counts that the thread was started with, as
its `targets`: a program's own thread may well run ``queue.get`` or ``pool.map``.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from .._hazard import ACTION, ADVICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal


class Owner:
    """Who starts threads that look like this.

    Attributes:
        library: Its name, for people.
        modules: Prefixes of the modules whose code the thread runs, by whole components.
        targets: Patterns of what the thread was started with, ``module:qualname``.
        names: Patterns of thread names, for libraries that hand the thread code of others.
        remedy: What to write.
        severity: See the top of this file.
        restarts: See the top of this file.
        answered_by: See the top of this file.
    """

    def __init__(
        self,
        library: str,
        modules: tuple[str, ...] = (),
        *,
        targets: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        remedy: str,
        severity: Literal["action", "advice"] = ACTION,
        restarts: str = "",
        answered_by: tuple[str, ...] = (),
    ) -> None:
        self.library = library
        self.modules = modules
        self.targets = targets
        self.names = names
        self.remedy = remedy
        self.severity: Literal["action", "advice"] = severity
        self.restarts = restarts
        self.answered_by = answered_by


UNKNOWN = Owner(
    "",
    remedy=(
        "start it after the fork: in the worker's start-up hook, or with "
        "multiprocessing.util.register_after_fork(owner, restart)"
    ),
)

OWNERS = (
    # The standard library's own.
    Owner(
        "concurrent.futures.ThreadPoolExecutor",
        targets=("concurrent.futures.thread:_worker",),
        remedy="nothing under forksafe; else make the executor in the child",
        answered_by=("executor:ThreadPoolExecutor*", "interpreter"),
    ),
    Owner(
        "concurrent.futures.ProcessPoolExecutor",
        targets=("concurrent.futures.process:_ExecutorManagerThread.run",),
        remedy="make the executor in the child",
        answered_by=("executor:ProcessPoolExecutor",),
    ),
    Owner(
        "multiprocessing.Pool",
        targets=(
            "multiproces*.pool:Pool._handle_*",
            "multiproces*.pool:worker",
            "billiard.pool:PoolThread.run",
            "billiard.pool:Worker*",
        ),
        remedy="make the pool in the child",
        answered_by=("pool",),
    ),
    Owner(
        "multiprocessing.Queue",
        targets=("multiproces*.queues:Queue._feed", "billiard.queues:Queue._feed"),
        remedy="nothing under forksafe: the child's queue starts a feeder of its own",
        answered_by=("queue",),
    ),
    Owner(
        "logging.handlers.QueueListener",
        ("logging.handlers",),
        remedy=(
            "stop() the listener before the fork and start() it in both processes, or let the "
            "children log into a multiprocessing.Queue that the parent's listener reads"
        ),
    ),
    # What programs use.
    Owner(
        "OpenTelemetry",
        ("opentelemetry",),
        names=("Otel*",),
        remedy=(
            "set up the provider and its processors in the child (Gunicorn: post_fork); a recent "
            "SDK restarts this thread by itself, with the resource and exporter of the parent"
        ),
        restarts="_at_fork_reinit",
    ),
    Owner(
        "sentry-sdk",
        ("sentry_sdk",),
        names=("sentry-sdk.*", "sentry.*"),
        remedy=(
            "none needed: sentry-sdk starts it again at the child's first event; what waits in "
            "its queue is sent by the parent, and also by the child: sentry_sdk.flush() before "
            "the fork, or sentry_sdk.init() in the child"
        ),
        severity=ADVICE,
    ),
    Owner(
        "ddtrace",
        ("ddtrace",),
        names=("ddtrace*", "*:ddtrace*"),
        remedy=(
            "import ddtrace.auto (or run under ddtrace-run) before all else: its own at-fork "
            "hooks then restart its threads"
        ),
    ),
    Owner(
        "APScheduler",
        ("apscheduler",),
        names=("APScheduler",),
        remedy=(
            "call scheduler.start() in one process only, after the fork; for a job that must "
            "run once, in a process of its own"
        ),
    ),
    Owner(
        "psycopg_pool",
        ("psycopg_pool",),
        remedy="make the pool with open=False, and pool.open() in the child",
    ),
    Owner(
        "PyMongo",
        ("pymongo",),
        names=("pymongo_*",),
        remedy=(
            "make the MongoClient in the child, or with connect=False and no use before the "
            "fork: PyMongo calls a client that was used before a fork unsafe"
        ),
    ),
    Owner(
        "kafka-python",
        ("kafka",),
        names=("kafka-python-*",),
        remedy="make the producer or consumer in the child; flush() and close() one made before",
    ),
    Owner(
        "confluent-kafka",
        ("confluent_kafka",),
        remedy="make the producer or consumer in the child: librdkafka does not survive a fork",
    ),
    Owner(
        "prometheus_client",
        ("prometheus_client",),
        remedy=(
            "call start_http_server() in one process only, with "
            "prometheus_client.multiprocess.MultiProcessCollector for the numbers of all"
        ),
    ),
    Owner("redis-py", ("redis",), remedy="start run_in_thread() and the like in the child"),
    Owner(
        "gRPC",
        ("grpc",),
        remedy=(
            "make channels and servers in the child; or close them before the fork and set "
            "GRPC_ENABLE_FORK_SUPPORT=1 before the first import of grpc"
        ),
    ),
    Owner("Datadog statsd", ("datadog",), remedy="initialize() in the child"),
    Owner("New Relic", ("newrelic",), remedy="register_application() in the child (post_fork)"),
    Owner("Google Cloud", ("google.cloud", "google.api_core"), remedy="make clients in the child"),
    Owner("Azure Monitor", ("azure",), remedy="configure the exporter in the child"),
    Owner("Elastic APM", ("elasticapm",), remedy="make the Client in the child"),
    Owner("LaunchDarkly", ("ldclient",), remedy="ldclient.get().postfork() in the child (9.8+)"),
    Owner("PostHog", ("posthog",), remedy="make the client in the child, or sync_mode=True"),
    Owner("watchdog", ("watchdog",), remedy="start the Observer in one process, after the fork"),
    Owner("Celery beat", ("celery.beat",), remedy="run beat as a process of its own"),
    Owner(
        "tqdm",
        ("tqdm",),
        remedy="none needed: set tqdm.monitor_interval = 0 to do without",
        severity=ADVICE,
    ),
    Owner("Paramiko", ("paramiko",), remedy="connect in the child: the transport is its thread"),
    Owner("pika", ("pika",), remedy="connect in the child"),
    Owner("Zookeeper (kazoo)", ("kazoo",), remedy="make the KazooClient in the child"),
    Owner("Cassandra driver", ("cassandra",), remedy="make the Cluster and Session in the child"),
)


def owner(target: str, modules: Iterable[str], name: str) -> Owner:
    """Return whose thread this is, `UNKNOWN` if nobody's in the table.

    Args:
        target: What it was started with, ``module:qualname``.
        modules: The modules whose code that is.
        name: Its name.
    """
    modules = list(modules)
    for known in OWNERS:
        if any(fnmatchcase(target, pattern) for pattern in known.targets):
            return known
    for known in OWNERS:
        for prefix in known.modules:
            for module in modules:
                if module == prefix or module.startswith(prefix + "."):
                    return known
    for known in OWNERS:
        if any(fnmatchcase(name, pattern) for pattern in known.names):
            return known
    return UNKNOWN
