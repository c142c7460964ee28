"""Well-known owners of native threads, by the name they give them. A table: add a line.

The kernel cuts names at 15 bytes. Threads without a name bear that of the process; whose they are
can then only be guessed from the libraries that are mapped (`MAPPED`).
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from .._hazard import ACTION, ADVICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


class NativeOwner:
    """Who starts native threads of this name.

    Attributes:
        library: Its name, for people.
        remedy: What to write.
        severity: ``advice`` only where the library has at-fork handlers (pthread_atfork).
    """

    def __init__(
        self, library: str, remedy: str, severity: Literal["action", "advice"] = ACTION
    ) -> None:
        self.library = library
        self.remedy = remedy
        self.severity: Literal["action", "advice"] = severity


_GRPC = NativeOwner(
    "gRPC",
    "make channels and servers in the child; or close them before the fork and set "
    "GRPC_ENABLE_FORK_SUPPORT=1 before the first import of grpc",
)
_RUST = NativeOwner(
    "a Rust runtime", "use the library (polars, tokio, rayon) only after the fork, or spawn instead"
)
_ARROW = NativeOwner("Arrow", "use pyarrow only after the fork: its pools are not started again")
_UNKNOWN = NativeOwner("", "find the library that starts it, and import or use it in the child")

NAMED: tuple[tuple[str, NativeOwner], ...] = (
    ("grpc_*", _GRPC),
    ("event_engine", _GRPC),
    ("lifeguard", _GRPC),
    ("default-executo", _GRPC),
    ("resolver-execut", _GRPC),
    ("timer_manager", _GRPC),
    ("tokio-*", _RUST),
    ("polars-*", _RUST),
    ("rayon*", _RUST),
    ("lance*", _RUST),
    ("arrow*", _ARROW),
    ("jemalloc_bg_thd", NativeOwner("jemalloc", "none needed: jemalloc restarts it", ADVICE)),
    ("iou-*", NativeOwner("io_uring", "make the ring in the child: it belongs to one process")),
    ("iou_*", NativeOwner("io_uring", "make the ring in the child: it belongs to one process")),
    ("cuda*", NativeOwner("CUDA", "initialise CUDA in the child only, or use the spawn method")),
    ("rdk:*", NativeOwner("librdkafka", "make the producer or consumer in the child")),
    ("libuv-worker", NativeOwner("libuv", "start the loop in the child")),
    ("gunicorn*", NativeOwner("Gunicorn", "none needed: Gunicorn stops it at the fork", ADVICE)),
)

# What the unnamed threads are likely to be, by a library that is mapped into the process.
MAPPED: tuple[tuple[str, NativeOwner], ...] = (
    (
        "openblas",
        NativeOwner(
            "most likely OpenBLAS",
            "none needed: OpenBLAS stops and restarts them at a fork; OPENBLAS_NUM_THREADS=1 "
            "does without them",
            ADVICE,
        ),
    ),
    (
        "libgomp",
        NativeOwner(
            "most likely GNU OpenMP",
            "run no parallel region before the fork (OMP_NUM_THREADS=1 in the parent): libgomp "
            "hangs in the child",
        ),
    ),
    (
        "libiomp5",
        NativeOwner("most likely Intel OpenMP", "run no parallel region before the fork"),
    ),
)


def owner(name: str, unnamed: bool) -> NativeOwner:
    """Return whose native thread this is.

    Args:
        name: Its name.
        unnamed: Whether that is just the name of the process.
    """
    for pattern, known in NAMED:
        if fnmatchcase(name, pattern):
            return known
    return _mapped() if unnamed else _UNKNOWN


def _mapped() -> NativeOwner:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            maps = file.read()
    except OSError:
        return _UNKNOWN
    names = {line.rpartition("/")[2].rstrip() for line in maps.splitlines() if "/" in line}
    found = [known for library, known in MAPPED if any(library in name for name in names)]
    if len(found) < 2:
        return found[0] if found else _UNKNOWN
    # Which of them it is cannot be told, so the one that would hurt counts.
    found.sort(key=lambda known: known.severity != ACTION)
    libraries = " or ".join(known.library for known in found)
    return NativeOwner(libraries, found[0].remedy, found[0].severity)
