"""Objects known to hold a connected socket, and what to do about each. A table: add a line.

The most derived class that is listed counts, and of several objects that hold one socket the one
listed first. `sockets` are paths of attributes that lead from the object to its descriptor, or to
something that has a ``fileno()``; the first that leads anywhere counts.
"""

from __future__ import annotations

from .._hazard import ACTION, ADVICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

_OWN = "multiprocessing.util.register_after_fork"


class ConnectionOwner:
    """A class whose instances hold a connection.

    Attributes:
        library: Its name, for people.
        path: ``"module:Class"``.
        sockets: See the top of this file.
        remedy: What to write.
        severity: ``advice`` only where both processes can go on with what they share.
    """

    def __init__(
        self,
        library: str,
        path: str,
        *sockets: str,
        remedy: str,
        severity: Literal["action", "advice"] = ACTION,
    ) -> None:
        self.library = library
        self.path = path
        self.sockets = sockets
        self.remedy = remedy
        self.severity: Literal["action", "advice"] = severity


UNKNOWN = ConnectionOwner("", "", remedy="close it before the fork, or open it in the child")

_REDIS = f"""close the client before the fork (client.close()), or make it in the child; \
or {_OWN}(pool, lambda p: p.reset())"""
_PSYCOPG = """connect in the child; never close() an inherited connection there: that ends \
the parent's session too"""
_HTTP = "close the session or connection before the fork, or make one in each process"
_MYSQL = (
    "connect in the child; one inherited must not be closed there, for it says goodbye for both"
)

OWNERS = (
    ConnectionOwner("redis-py", "redis.connection:AbstractConnection", "_sock", remedy=_REDIS),
    ConnectionOwner(
        "redis-py",
        "redis.asyncio.connection:AbstractConnection",
        "_writer.transport._sock",
        remedy=_REDIS,
    ),
    ConnectionOwner("psycopg", "psycopg:Connection", "pgconn.socket", remedy=_PSYCOPG),
    ConnectionOwner("psycopg", "psycopg:AsyncConnection", "pgconn.socket", remedy=_PSYCOPG),
    ConnectionOwner("psycopg2", "psycopg2.extensions:connection", "", remedy=_PSYCOPG),
    ConnectionOwner("PyMySQL", "pymysql.connections:Connection", "_sock", remedy=_MYSQL),
    ConnectionOwner("mysqlclient", "MySQLdb.connections:Connection", "", remedy=_MYSQL),
    ConnectionOwner(
        "MySQL Connector", "mysql.connector.network:MySQLSocket", "sock", remedy=_MYSQL
    ),
    ConnectionOwner(
        "PyMongo",
        "pymongo.network_layer:NetworkingInterface",
        "conn",
        remedy="make the MongoClient in the child: PyMongo calls an inherited one unsafe",
    ),
    ConnectionOwner(
        "PyMongo",
        "pymongo.pool:Connection",
        "conn",
        remedy="make the MongoClient in the child: PyMongo calls an inherited one unsafe",
    ),
    ConnectionOwner("urllib3", "urllib3.connection:HTTPConnection", "sock", remedy=_HTTP),
    ConnectionOwner("http.client", "http.client:HTTPConnection", "sock", remedy=_HTTP),
    ConnectionOwner("httpcore", "httpcore._backends.sync:SyncStream", "_sock", remedy=_HTTP),
    ConnectionOwner(
        "pika",
        "pika.adapters.utils.nbio_interface:AbstractStreamTransport",
        "_sock",
        remedy="connect in the child",
    ),
    ConnectionOwner(
        "py-amqp", "amqp.transport:_AbstractTransport", "sock", remedy="connect in the child"
    ),
    ConnectionOwner(
        "kafka-python",
        "kafka.conn:BrokerConnection",
        "_sock",
        remedy="make the producer or consumer in the child",
    ),
    ConnectionOwner(
        "pymemcache",
        "pymemcache.client.base:Client",
        "sock",
        remedy="close() the client before the fork: it connects again when used",
    ),
    ConnectionOwner(
        "Paramiko", "paramiko.transport:Transport", "sock", remedy="connect in the child"
    ),
    ConnectionOwner(
        "ldap3", "ldap3.core.connection:Connection", "socket", remedy="bind in the child"
    ),
    ConnectionOwner("smtplib", "smtplib:SMTP", "sock", remedy="connect in the child"),
    ConnectionOwner("imaplib", "imaplib:IMAP4", "sock", remedy="connect in the child"),
    ConnectionOwner("ftplib", "ftplib:FTP", "sock", remedy="connect in the child"),
    ConnectionOwner(
        "logging",
        "logging.handlers:SysLogHandler",
        "socket",
        remedy="none needed: a record is one message, whoever sends it",
        severity=ADVICE,
    ),
    ConnectionOwner(
        "logging",
        "logging.handlers:SocketHandler",
        "sock",
        remedy="close the handler's socket before the fork: it connects again with the next record",
    ),
    ConnectionOwner(
        "asyncio",
        "asyncio.selector_events:_SelectorTransport",
        "_sock",
        remedy="open it in the child, in the child's own loop",
    ),
    ConnectionOwner(
        "multiprocessing",
        "multiprocessing.connection:Connection",
        "_handle",
        remedy="let one process read and one write; a manager's proxies connect by themselves",
    ),
)

# What holds the descriptor itself, when nothing above does.
SOCKETS = ("ssl:SSLSocket", "socket:socket")
