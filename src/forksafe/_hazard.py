"""What the audit tells: one frozen value for each thing that a fork would meet.

The kinds are stable: programs match on them, allow-lists name them, and docs/audit.md explains
each. A new kind is a line here and a section there; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

ACTION: Literal["action"] = "action"
FIXED: Literal["fixed"] = "fixed"
ADVICE: Literal["advice"] = "advice"

SEVERITIES = (ACTION, FIXED, ADVICE)

# In order of how often they bite.
KINDS = (
    "thread",
    "native-thread",
    "socket",
    "database",
    "connection-pool",
    "child-process",
    "manager",
    "proxy",
    "queue",
    "pool",
    "executor",
    "interpreter",
    "forkserver",
    "resource-tracker",
    "shared-memory",
    "after-fork-callbacks",
    "event-loop",
    "wakeup-fd",
    "temporary-directory",
    "temporary-file",
    "import",
    "lock",
    "open-file",
    "exit-handlers",
    "module",
    "random-state",
    "memory",
    "unknown",
)


@dataclass(frozen=True)
class Hazard:
    """One thing that a fork here and now would break, or that forksafe would mend.

    Attributes:
        kind: What it is: one of the stable names in docs/audit.md.
        severity: ``"action"``: you must do something. ``"fixed"``: forksafe handles it, in the
            forks that it is active for. ``"advice"``: it works, and there is something to know.
        summary: One line: what would happen.
        subject: Which one it is, among those of its kind: a thread's name, a socket's peer. What
            the allow-list matches.
        detail: More about it, in sentences.
        remedy: What to write, or to do.
        where: Where it comes from, as far as it can be known: ``module:qualname``, a file and
            line, a file descriptor. May be empty.
    """

    kind: str
    severity: Literal["action", "fixed", "advice"]
    summary: str
    subject: str = ""
    detail: str = ""
    remedy: str = ""
    where: str = ""

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        return f"{self.kind}: {self.summary}{where}"
