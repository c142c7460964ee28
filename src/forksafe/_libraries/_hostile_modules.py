"""Libraries known not to survive a fork, or to need something for it. A table: add a line.

`state` tells, from what is loaded already, whether the library is in the state that hurts: a
``"module:name"`` whose value must be true; a call is never made. Without `state` the library
being loaded is what is told, as advice: an import alone is seldom wrong.
"""

from __future__ import annotations

from .._hazard import ACTION, ADVICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


class HostileModule:
    """A library that a fork can hurt.

    Attributes:
        module: The module whose being loaded is looked at.
        trouble: What would happen.
        remedy: What to write.
        severity: ``action`` only where the trouble is certain.
        state: See the top of this file.
        environment: Variables that the library goes by, to be shown with their values.
        kind: The hazard's kind.
    """

    def __init__(
        self,
        module: str,
        trouble: str,
        remedy: str,
        *,
        severity: Literal["action", "advice"] = ADVICE,
        state: str = "",
        environment: tuple[str, ...] = (),
        kind: str = "module",
    ) -> None:
        self.module = module
        self.trouble = trouble
        self.remedy = remedy
        self.severity: Literal["action", "advice"] = severity
        self.state = state
        self.environment = environment
        self.kind = kind


_RUST = "its Rust thread pool hangs in a child once it was used in the parent"

MODULES = (
    HostileModule(
        "grpc",
        "channels made before a fork do not work in the child unless its fork support is on",
        "make channels in the child; or close them before the fork and set "
        "GRPC_ENABLE_FORK_SUPPORT=1 before the first import of grpc",
        environment=("GRPC_ENABLE_FORK_SUPPORT", "GRPC_POLL_STRATEGY"),
    ),
    HostileModule(
        "torch.cuda",
        "CUDA is initialised, and cannot be used in a forked child",
        "use CUDA in the child only, or multiprocessing's spawn method",
        severity=ACTION,
        state="torch.cuda:_initialized",
    ),
    HostileModule(
        "cupy_backends.cuda.api.runtime",
        "CUDA, once used, cannot be used in a forked child",
        "use CUDA in the child only, or multiprocessing's spawn method",
    ),
    HostileModule(
        "tensorflow",
        "its runtime starts native threads at first use, which a child does not have",
        "use it first in the child",
    ),
    HostileModule("polars", _RUST, "use it first in the child, or use the spawn method"),
    HostileModule("lance", _RUST, "use it first in the child, or use the spawn method"),
    HostileModule("lancedb", _RUST, "use it first in the child, or use the spawn method"),
    HostileModule(
        "tokenizers",
        _RUST,
        "set TOKENIZERS_PARALLELISM=false, or use it in the child",
        environment=("TOKENIZERS_PARALLELISM",),
    ),
    HostileModule(
        "pyarrow",
        "its CPU and I/O thread pools, once used, are not started again in the child",
        "use it first in the child",
    ),
    HostileModule(
        "duckdb",
        "a database opened before the fork is unusable in the child",
        "connect in the child",
    ),
    HostileModule("lmdb", "an Environment must not be used across a fork", "open it in the child"),
    HostileModule(
        "confluent_kafka",
        "librdkafka's threads are gone in the child",
        "make producers and consumers in the child",
    ),
    HostileModule(
        "rocksdb",
        "a database opened before the fork is unusable in the child",
        "open it in the child",
    ),
    HostileModule(
        "numpy.random.mtrand",
        "children draw the same numbers from numpy's global generator, each of them",
        "numpy.random.seed() in the child, or a Generator of its own: numpy.random.default_rng()",
        kind="random-state",
    ),
)
