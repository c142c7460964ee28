"""What parent and child would share through descriptors: connections, databases, files.

We ask the kernel which sockets are connected, so we miss none, whoever opened it; the heap only
tells whose it is. We find SQLite databases by their first bytes, read through the open descriptor:
to close another one would drop all locks that the process has on the file (fcntl(2)).
"""

from __future__ import annotations

import gc
import io
import os
import socket
import stat

from .._fork_event._typing import Any, Iterator
from .._hazard import ACTION, ADVICE, FIXED, SEVERITIES, TEXTS, Hazard, tell
from .._libraries import LIBRARIES, UNKNOWN, Library
from .._libraries._connections import ROWS, is_in_memory
from .._libraries._heap import PYPY, names
from .._steps._streams import streams
from ._scene import UNNAMED, Scene, address_of, descriptors, path_of

_ROWS = {known.name: known for known in LIBRARIES}
_OWNERS: list[tuple[str, Any, Library]] = []  # what holds a socket, how to ask it, and whose it is
for known in LIBRARIES:
    words = [word.rpartition(".") for word in known.connections.split()]
    _OWNERS += [(path, attribute, known) for path, _, attribute in words]
    _OWNERS += [(r.path, r.socket, known) for r in ROWS if r.socket and r.library == known.name]
_OWNERS += [(path, "", UNKNOWN) for path in ("ssl:SSLSocket", "socket:socket")]
_LOOPS = "asyncio.selector_events:BaseSelectorEventLoop"
_ENGINES, _RECORDS = "sqlalchemy.engine.base:Engine", "sqlalchemy.pool.base:_ConnectionRecord"
_PSYCOPG_POOLS = [row.path for row in ROWS if row.library == "psycopg_pool"]
_PSYCOPG = [row.path for row in ROWS if row.library == "psycopg"]
_SQLITE, _DJANGO = "sqlite3:Connection", "django.db.backends.base.base:BaseDatabaseWrapper"
_REDIS = ("redis.connection:ConnectionPool", "redis.asyncio.connection:ConnectionPool")
_BINARY = ("_io:BufferedWriter", "_io:BufferedRandom")
_TEXT, _CLOSER, _POPEN = "_io:TextIOWrapper", "tempfile:_TemporaryFileCloser", "subprocess:Popen"
# What writes at its end: attributes with its file and its name, and whether that is due.
_FINISHED: dict[str, tuple[str, str, Any]] = {
    "gzip:GzipFile": ("fileobj", "name", lambda file: file.writable()),
    "zipfile:ZipFile": ("fp", "filename", lambda file: file._didModify),
    "dbm.dumb:_Database": ("_index", "_datfile", lambda file: file._modified),
}
WANTED = (*(path for path, _, _ in _OWNERS), _LOOPS, _RECORDS, _SQLITE, *_REDIS, *_BINARY, _TEXT,
          _CLOSER, _POPEN, *_FINISHED)  # fmt: skip
_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)  # Linux
_ESTABLISHED = 1  # in tcp_states.h of Linux, the first byte of TCP_INFO
_SQLITE_HEADER = b"SQLite format 3\0"  # sqlite.org/fileformat.html, 1.3


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield pools first, and then the descriptors that no pool answers for."""
    # By descriptor (None: closed) those that hold it; the hazard names the first one.
    holders: dict[int | None, list[tuple[Library, Any]]] = {}
    for path, name, known in _OWNERS:
        for holder in scene.instances(path):
            holders.setdefault(_follow(holder, name), []).append((known, holder))
    told = {_follow(loop, end) for loop in scene.instances(_LOOPS) for end in ("_ssock", "_csock")}
    for library, pool, name, connections, dropped in _pools(scene):
        mine = {id(getattr(one, "_connection", None) or one) for one in connections}
        told |= {fd for fd, found in holders.items() if any(id(one) in mine for _, one in found)}
        severity, remedy = scene.judge(ACTION, _ROWS[library].connect, pool, *connections[:1])
        if dropped:
            severity, remedy = ADVICE, "none needed: the pool opens its own in the child"
        if getattr(getattr(pool, "dialect", None), "is_async", False):
            remedy = "await " + remedy.replace("fork(engine,", "fork(engine.sync_engine,")
        what = (library, name, f"{len(connections)} connection{'s' * (len(connections) != 1)}")
        yield tell("connection-pool", name, path_of(pool), *what, severity=severity,
                   remedy=remedy, library=library)  # fmt: skip
    if (numbers := descriptors()) is None:
        yield tell("unknown list", "descriptors", "", "which sockets are connected")
    for fd in numbers or ():
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISSOCK(mode) and fd not in told:
                yield from _socket(scene, fd, holders.get(fd, [(UNKNOWN, None)]))
            elif stat.S_ISREG(mode) and names("_sqlite3"):
                yield from _sqlite(scene, fd)
        except OSError:
            pass  # it was closed meanwhile, or is not connected
    yield from _files(scene)


def _follow(thing: Any, way: Any = "") -> int | None:
    """Return the descriptor of `thing`, or of what a function or attribute gives; or None."""
    try:
        thing = way(thing) if callable(way) else getattr(thing, way) if way else thing
        fd = thing if isinstance(thing, int) else thing.fileno()
    except Exception:  # closed, half made, another version of the library
        return None
    return fd if isinstance(fd, int) and fd >= 0 else None


def _pools(scene: Scene) -> Iterator[tuple[str, Any, str, list[Any], bool]]:
    """Yield library, pool, name, connections, and whether the child's pool drops them itself."""
    held: dict[int, list[Any]] = {}
    for record in scene.instances(_RECORDS):
        if getattr(record, "dbapi_connection", None) is not None:
            pool = getattr(record, "_ConnectionRecord__pool", None)
            held.setdefault(id(pool), []).append(record.dbapi_connection)
    for engine in {id(engine.pool): engine for engine in scene.instances(_ENGINES)}.values():
        if id(engine.pool) in held and not is_in_memory(engine):  # the child has a copy of its own
            name = engine.url.render_as_string(hide_password=True)
            yield "SQLAlchemy", engine, name, held[id(engine.pool)], False
    for pool in scene.instances(*_PSYCOPG_POOLS):
        if not getattr(pool, "_closed", True):
            used = [one for one in scene.instances(*_PSYCOPG) if getattr(one, "_pool", 0) is pool]
            yield "psycopg_pool", pool, pool.name, [*pool._pool, *used], False
    for pool in scene.instances(*_REDIS):
        if hasattr(pool, "_available_connections"):
            idle = list(pool._available_connections)
            every = [*idle, *getattr(pool, "_in_use_connections", ())]
        else:  # a BlockingConnectionPool lists all, and those that wait in a queue
            idle = list(getattr(getattr(pool, "pool", None), "queue", ()))
            every = list(getattr(pool, "_connections", ()))
        every = [one for one in every if getattr(one, "_sock", getattr(one, "_writer", None))]
        lent = {id(one) for one in every} - {id(one) for one in idle}
        options = getattr(pool, "connection_kwargs", {})
        name = str(options.get("path") or f"{options.get('host')}:{options.get('port')}")
        # Since 3.4 the pool compares its pid, and starts afresh; connections that were lent stay.
        if every:
            yield "redis-py", pool, name, every, hasattr(type(pool), "_checkpid") and not lent


def _socket(scene: Scene, fd: int, holders: list[tuple[Library, Any]]) -> Iterator[Hazard]:
    """Yield the hazard of a socket; raise OSError unless it is connected, or listens."""
    blocking = os.get_blocking(fd)
    duplicate = os.dup(fd)  # so that nothing here can close the program's own
    # With a default timeout, socket() sets O_NONBLOCK for all, unless the type says it is set.
    try:
        sock = socket.socket(-1, socket.SOCK_STREAM | _NONBLOCK, 0, fileno=duplicate)
    except BaseException:
        os.close(duplicate)
        raise
    with sock:
        if not _NONBLOCK:
            os.set_blocking(fd, blocking)
        family = getattr(sock.family, "name", str(sock.family))
        if family not in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_VSOCK"):
            return
        own = address_of(sock.getsockname())
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield tell("socket listening", own, f"fd {fd}", own)
            return
        peer = address_of(sock.getpeername())
        stream = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        is_tcp = stream and _NONBLOCK and family in ("AF_INET", "AF_INET6")
        if is_tcp and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED:
            return
    known, holder = holders[0]
    severity, remedy = known.severity, known.connect
    proxies = [hazard.subject for hazard in scene.found if hazard.kind == "proxy"]
    if known.name == "multiprocessing" and peer in proxies:
        severity, remedy = FIXED, "nothing under forksafe: the child's proxies open their own"
    elif peer == own == UNNAMED:
        severity, remedy = ADVICE, "let each process use, and keep open, one end of the pair"
    elif not stream:
        severity = ADVICE
        remedy = remedy if known.name else "none, if only one process reads from it"
    elif holder is None and peer.startswith("[::ffff:") and (prepared := _ROWS["gRPC"].settled):
        # gRPC makes sockets for both families, and no other library is known for that.
        severity, remedy = ADVICE, f"none needed, if it is gRPC's: {prepared} is set"
    severity, remedy = scene.judge(severity, remedy, *(thing for _, thing in holders))
    subject = own if peer == UNNAMED else peer
    kind = f"{'connection' if stream else 'datagram socket'}{known.name and f' of {known.name}'}"
    where = f"fd {fd}, {'no Python object' if holder is None else path_of(holder)}"
    secure = any(type(thing).__name__ == "SSLSocket" for _, thing in holders)
    more = " It is encrypted: both processes would go on from one state of the cipher." * secure
    yield tell("socket", subject, where, kind, subject, severity=severity, remedy=remedy,
               detail=(family, own, peer, more), library=known.name)  # fmt: skip


def _sqlite(scene: Scene, fd: int) -> Iterator[Hazard]:
    if os.pread(fd, len(_SQLITE_HEADER), 0) == _SQLITE_HEADER:
        link = f"/proc/self/fd/{fd}"
        name = os.readlink(link) if os.path.islink(link) else f"(descriptor {fd})"
        # Which connection has the file is not known, so the worst verdict on any of them counts.
        owners = {id(getattr(one, "connection", None)): one for one in scene.instances(_DJANGO)}
        owners.update((id(one), pool) for _, pool, _, all_, _ in _pools(scene) for one in all_)
        every = [owners.get(id(one)) for one in scene.instances(_SQLITE)] or [None]
        verdicts = [scene.judge(ACTION, TEXTS["database"][2], one) for one in every]
        severity, remedy = min(verdicts, key=lambda verdict: SEVERITIES.index(verdict[0]))
        yield tell("database", name, f"fd {fd}", name, severity=severity, remedy=remedy)


def _files(scene: Scene) -> Iterator[Hazard]:
    for closer in scene.instances(_CLOSER):
        values = vars(closer)
        # 3.12 has both: with delete_on_close=False a closed file is still there to be deleted.
        done = values.get("cleanup_called" if hasattr(type(closer), "cleanup") else "close_called")
        if values.get("delete") and not done:
            name = str(values.get("name"))
            yield tell("temporary-file", name, "tempfile:NamedTemporaryFile", name)
    for process in scene.instances(_POPEN):
        if process.returncode is None:
            args = process.args
            name = _name(args if isinstance(args, (str, bytes, os.PathLike)) else args[0])
            yield tell("child-process", name, f"pid {process.pid}", name)
    handled = {id(each) for s in streams() for each in (s, getattr(s, "buffer", None))}  # a step's
    for path, (attribute, named, is_due) in _FINISHED.items():
        for file in scene.instances(path):
            below = getattr(file, attribute, None)
            if below is not None and is_due(file):
                handled.add(id(below))
                name = _name(getattr(file, named))
                yield tell("open-file at its end", name, path, name)
    waiting = {id(file): (file, _waiting(file)) for file in scene.instances(*_BINARY)}
    for file in scene.instances(_TEXT):
        if size := _waiting(file):
            waiting[id(file)] = (file, size + waiting.pop(id(file.buffer), (file, 0))[1])
    for file, size in waiting.values():
        if size > 0 and id(file) not in handled:
            fd, path = _follow(file), _name(getattr(file, "name", None))
            yield tell("open-file", path, "" if fd is None else f"fd {fd}", size, path)


def _name(called: Any) -> str:
    if isinstance(called, (str, bytes, os.PathLike)):
        return os.fsdecode(called)
    return "(without a name)" if called is None else f"(descriptor {called})"


def _waiting(file: Any) -> int:
    """Return how many bytes or characters wait in a file; 0 for a pipe, where nothing shows."""
    try:
        if not isinstance(file, io.TextIOWrapper):
            # How far it is ahead of its descriptor; a raw layer of the program's own is not called.
            regular = type(file.raw) is io.FileIO and not file.closed
            return int(file.tell() - file.raw.tell()) if regular else 0
        # The bytes and text that it refers to; in a file that also reads, these may be input.
        if PYPY or file.closed or file.readable() or not file.writable():
            return 0
        things = gc.get_referents(file)
        things += [part for thing in things if type(thing) is list for part in thing]
        known = (file.encoding, file.errors, "", "\n", "\r", "\r\n")  # it was opened with these
        return sum(len(x) for x in things if type(x) in (bytes, str) and x not in known)
    except (OSError, ValueError, AttributeError):
        return 0
