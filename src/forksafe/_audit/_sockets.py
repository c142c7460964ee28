"""Connected sockets: after a fork two processes read and write one conversation.

Listening sockets are meant to be shared, and not told. The kernel is asked which descriptors are
connected, so that none is missed whoever opened it; the heap only tells whose it is.
"""

from __future__ import annotations

import os
import socket
import stat

from .._hazard import ADVICE, FIXED, Hazard
from .._libraries import _connection_owners as table
from ._descriptors import descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    from .._libraries._connection_owners import ConnectionOwner
    from ._scene import Scene

_LOOPS = "asyncio.selector_events:BaseSelectorEventLoop"
WANTED = (*(owner.path for owner in table.OWNERS), *table.SOCKETS, _LOOPS)

_FAMILIES = {
    getattr(socket, name) for name in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_VSOCK")
    if hasattr(socket, name)
}  # fmt: skip
_ESTABLISHED = 1  # in tcp_states.h of Linux, the first byte of TCP_INFO
_UNNAMED = "(unnamed)"


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    numbers = descriptors()
    if numbers is None:
        yield Hazard(
            "socket",
            ADVICE,
            "which sockets are connected cannot be seen on this system",
            subject="(unknown)",
            detail="Neither /proc/self/fd nor /dev/fd lists the descriptors.",
            remedy="run the audit on Linux too, or look with lsof or fstat",
        )
        return
    connected = [(fd, found) for fd in numbers if (found := _look(fd)) is not None]
    if not connected:
        return
    internal = _inside_loops(scene)
    holders = _holders(scene)
    managers = {hazard.subject for hazard in scene.of_kind("proxy") if hazard.severity == FIXED}
    for fd, connection in connected:
        if fd not in internal:
            owner, holder = holders.get(fd, (table.UNKNOWN, None))
            yield _hazard(scene, fd, connection, owner, holder, managers)


class _Connection:
    """What the kernel tells about a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.peer = _address(sock.family, sock.getpeername())
        self.local = _address(sock.family, sock.getsockname())
        self.family = getattr(sock.family, "name", str(sock.family))
        self.stream = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM

    @property
    def pair(self) -> bool:
        """True for a ``socketpair()``: neither end has a name."""
        return self.peer == _UNNAMED and self.local == _UNNAMED


def _look(fd: int) -> _Connection | None:
    """Return what is known of descriptor `fd`; None unless it is a connected socket."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        # A duplicate, so that nothing here can close the program's own.
        duplicate = os.dup(fd)
    except OSError:
        return None  # it was closed meanwhile
    try:
        with _open(duplicate) as sock:
            if sock.family not in _FAMILIES:
                return None
            connection = _Connection(sock)  # raises OSError (ENOTCONN) for listeners too
            if connection.stream and sock.family in (socket.AF_INET, socket.AF_INET6):
                info = getattr(socket, "TCP_INFO", None)
                if info is not None and hasattr(socket, "SOCK_NONBLOCK"):  # Linux
                    state = sock.getsockopt(socket.IPPROTO_TCP, info, 1)
                    if state[0] != _ESTABLISHED:
                        return None
            return connection
    except OSError:
        return None


def _open(fd: int) -> socket.socket:
    # With a default timeout set, socket() would make the shared file description non-blocking:
    # for the program too. It does not where the type says that it is so already.
    nonblock = getattr(socket, "SOCK_NONBLOCK", 0)
    blocking = os.get_blocking(fd)
    try:
        sock = socket.socket(-1, socket.SOCK_STREAM | nonblock, 0, fileno=fd)
    except BaseException:
        os.close(fd)
        raise
    if not nonblock:
        os.set_blocking(fd, blocking)
    return sock


def _address(family: int, address: Any) -> str:
    if family == getattr(socket, "AF_UNIX", None):
        if isinstance(address, bytes):
            address = "@" + address[1:].decode(errors="replace")  # abstract: unix(7)
        return address or _UNNAMED
    host, port = address[:2]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def _inside_loops(scene: Scene) -> set[int]:
    """Return the descriptors of the pairs by which asyncio's loops wake themselves."""
    found = set()
    for loop in scene.heap.instances(_LOOPS):
        for name in ("_ssock", "_csock"):
            fd = _follow(loop, name)
            if fd is not None:
                found.add(fd)
    return found


def _holders(scene: Scene) -> dict[int, tuple[ConnectionOwner, Any]]:
    """Return, by descriptor, the object that holds it."""
    found: dict[int, tuple[ConnectionOwner, Any]] = {}
    for path in table.SOCKETS:
        for holder in scene.heap.instances(path):
            fd = _follow(holder, "")
            if fd is not None:
                found.setdefault(fd, (table.UNKNOWN, holder))
    for owner in reversed(table.OWNERS):
        for holder in scene.heap.instances(owner.path):
            for path in owner.sockets:
                fd = _follow(holder, path)
                if fd is not None:
                    found[fd] = (owner, holder)
                    break
    return found


def _follow(thing: Any, path: str) -> int | None:
    """Return the descriptor at `path` from `thing`; None where there is none."""
    try:
        for name in path.split(".") if path else ():
            thing = getattr(thing, name)
        fd = thing if isinstance(thing, int) else thing.fileno()
    except Exception:  # closed, half made, another version of the library
        return None
    return fd if isinstance(fd, int) and fd >= 0 else None


def _hazard(
    scene: Scene,
    fd: int,
    connection: _Connection,
    owner: ConnectionOwner,
    holder: Any,
    managers: set[str],
) -> Hazard:
    severity: Literal["action", "fixed", "advice"] = owner.severity
    remedy = owner.remedy or "close it before the fork, or open it in the child"
    peer = connection.peer if connection.peer != _UNNAMED else connection.local
    becomes = "would be shared with the child: what one sends and receives, the other misses"
    if owner.library == "multiprocessing" and peer in managers:
        severity = FIXED
        remedy = "nothing under forksafe: the child's proxies open their own"
        becomes = "would be shared with the child, whose proxies open their own"
    elif id(holder) in scene.dropped:
        severity = ADVICE
        remedy = f"none needed: {owner.library} drops it in the child and opens its own"
        becomes = "would be inherited by the child, which does not use it"
    elif connection.pair:
        severity = ADVICE
        remedy = "let each process use, and keep open, one end"
        becomes = "would have both its ends in both processes"
    elif not connection.stream:
        severity = ADVICE
        remedy = remedy if owner.remedy else "none, if only one process reads from it"
        becomes = "would be shared with the child; what arrives reaches only one of the two"
    kind = type(holder)
    what = f"{kind.__module__}:{kind.__qualname__}" if holder is not None else "no Python object"
    whose = f" of {owner.library}" if owner.library else ""
    secure = (
        " It is encrypted: both processes would go on from one state of the cipher, and the peer "
        "would end the session." if _is_tls(holder) else ""
    )  # fmt: skip
    return Hazard(
        "socket",
        severity,
        f"{'connection' if connection.stream else 'datagram socket'}{whose} to {peer} {becomes}",
        subject=peer,
        detail=(
            f"{connection.family}, from {connection.local} to {connection.peer}; "
            f"held by {what}.{secure}"
        ),
        remedy=remedy,
        where=f"fd {fd}, {what}",
    )


def _is_tls(holder: Any) -> bool:
    for thing in (holder, getattr(holder, "_sock", None), getattr(holder, "sock", None)):
        if type(thing).__name__ == "SSLSocket":
            return True
    return False
