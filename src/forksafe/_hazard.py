"""What the audit tells: the kinds with their texts, the `Hazard` it returns, and the allow-list.

The kinds are stable: programs match on them, allow-lists name them, and docs/audit.md explains
each. A new kind is a row here and a section there; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Severity = Literal["action", "fixed", "advice"]
SEVERITIES: tuple[Severity, ...] = ("action", "fixed", "advice")
ACTION, FIXED, ADVICE = SEVERITIES

# By the kind, and its case if it has several, in order of how often they bite: the severity, what
# would happen without forksafe, the remedy (of what is fixed: what forksafe does), and details.
# fmt: off
# ruff: noqa: ISC004 - each row is one case, whose texts are long
TEXTS: dict[str, tuple[Any, ...]] = {
    "thread": (ACTION, "{} thread {!r}{} would be gone in the child{}", "", "{}What it was to "
        "do, and what waits in its queues, is never done in the child."),
    "native-thread": (ACTION, "{} {}{} would be gone in the child{}"),
    "socket": (ACTION, "{} to {} would be shared with the child: what one sends and receives, "
        "the other misses", "", "{}, from {} to {}.{}"),
    "socket listening": (ADVICE, "a child that lives on keeps the port of {} taken", "close it "
        "in a child that does not serve, or a server that starts again fails with EADDRINUSE"),
    "database": (ACTION, "the open SQLite database {} would be shared with the child", "close "
        "the connection before the fork, or connect in the child", "Both would believe that they "
        "hold its locks (sqlite.org/howtocorrupt.html, 2.6)."),
    "connection-pool": (ACTION, "{}'s pool {} holds {} that the child would share"),
    "child-process": (ADVICE, "to the child the program {} seems to have ended, with status 0",
        "ask only the process that started it, and close its pipes in the child"),
    "proxy": (FIXED, "{} manager proxies would share their connection with the child: replies "
        "reach the wrong process", "the child's proxies open connections of their own"),
    "queue": (FIXED, "what the child puts into a {} would be lost: its feeder thread stays "
        "with the parent", "the child's queue starts a feeder of its own"),
    "pool": (ACTION, "a {} will refuse work in the child, where it would wait for ever but for "
        "forksafe", "make the pool in the child, or after the forks"),
    "executor": (FIXED, "the {} would run nothing in the child", "it works in the child, with "
        "threads of its own"),
    "executor at work": (ACTION, "a {} at work will be broken in the child, where it would "
        "hang but for forksafe", "make the executor in the child, or after the forks"),
    "interpreter": (ACTION, "with subinterpreter {} the child crashes before it runs any code",
        "close() it before the fork, or shut its InterpreterPoolExecutor down", "CPython fails to "
        "delete it in the child (cpython gh-139759)."),
    "event-loop": (FIXED, "an event loop would share its epoll and self-pipe with the child: "
        "each process deafens the other, and takes its signals", "in the child it gets its own"),
    "event-loop running": (ACTION, "an event loop runs in another thread, and would stand "
        "still in the child", "make a loop in the child, and start its thread there"),
    "event-loop in C": (ACTION, "a uvloop event loop would be shared with the child, and "
        "cannot be told apart", "make the loop in the child, or close it before the fork"),
    "signal-handler": (ADVICE, "the child inherits the handler of {}: {}", "set it again in "
        "the child, or compare os.getpid() in it"),
    "temporary-file": (ACTION, "{} would be deleted by a child that ends as a program does, or "
        "that drops the NamedTemporaryFile", "fork with forked(), end the child with os._exit(), "
        "or use delete=False"),
    "lock": (ACTION, "the {} {} is held {}", "take it for the fork, and release it in both "
        "processes; or make it anew in the child: os.register_at_fork(after_in_child=...)", "If "
        "another thread holds it, it is locked in the child for ever."),
    "open-file": (ACTION, "{} characters or bytes wait to be written to {}: both processes "
        "would write them", "flush() it before the fork, or close it"),
    "open-file at its end": (ACTION, "{} would be finished by both processes", "close() it "
        "before the fork, or open it in the child", "It writes when it is closed or collected."),
    "exit-handlers": (ADVICE, "{} exit handler(s) would run in every child that ends as a "
        "program does", "fork with forked(), end the child with os._exit(), or check os.getpid()"),
    "module": (ADVICE, "{}: {}", "", "{}"),
    "random-state": (ADVICE, "{}: {}", "", "{}"),
    "memory": (ADVICE, "the process is {}, {} objects frozen", "install(freeze=True), in a "
        "server that preloads; or gc.freeze() right before the first fork", "A fork takes 10 to 25 "
        "ms for the page tables of each GiB."),
    "unknown": (ADVICE, "{} could not be looked at", "please report it", "The audit failed "
        "there with {}: {}"),
    "unknown layout": (ACTION, "{}: not as on any Python that forksafe knows, so that it is "
        "left alone", "use a version of forksafe that knows this Python", "{}"),
    "unknown list": (ADVICE, "{} cannot be seen here", "run the audit on Linux, with "
        "descriptors left (ulimit -n); or look with ps and lsof"),
    "unknown frozen": (ADVICE, "{} frozen objects were not looked at: pools, executors, loops, "
        "files, and who holds a socket", "run the audit before gc.freeze()"),
}
# fmt: on
KINDS = tuple(dict.fromkeys(key.partition(" ")[0] for key in TEXTS))


@dataclass(frozen=True)
class Hazard:
    """One thing that a fork here and now would break, or that forksafe would mend.

    Attributes:
        kind: What it is: one of the stable names in docs/audit.md.
        severity: ``"action"``: you must do something. ``"fixed"``: forksafe handles it, in the
            forks that it is active for. ``"advice"``: it works, but there is something to know.
        summary: One line: what would happen.
        subject: Which one of its kind: a thread's name, a socket's peer. An allow-list matches it.
        detail: More about it, in sentences.
        remedy: What to write, or to do.
        where: ``module:qualname``, a file and line, a file descriptor, as far as it can be known.
        library: The library that it belongs to, if known; an allow-list matches it, too.
    """

    kind: str
    severity: Severity
    summary: str
    subject: str = ""
    detail: str = ""
    remedy: str = ""
    where: str = ""
    library: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.summary}" + (f" ({self.where})" if self.where else "")


def tell(key: str, subject: str, where: str = "", *what: object, severity: Severity | None = None,
         remedy: str | None = None, detail: tuple[object, ...] = (),
         library: str = "") -> Hazard:  # fmt: skip
    """Return a hazard by its row of `TEXTS`: `what` fills the summary, `detail` the details."""
    row: Any = (*TEXTS[key], "", "")
    usual, summary, does, more = row[:4]
    level: Severity = severity or usual
    if remedy is None:
        remedy = f"nothing under forksafe: {does}" if level == FIXED else str(does)
    text, more = summary.format(*what), more.format(*detail)
    return Hazard(key.partition(" ")[0], level, text, subject, more, remedy, where, library)


class AllowList:
    """The hazards that are accepted: one pattern, or several, as `audit()` takes them; checked."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._rules: list[tuple[str, str]] = []
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"allow: a pattern must be a str, not {pattern!r}")
            kind, colon, subject = pattern.partition(":")
            if not any(fnmatchcase(known, kind) for known in KINDS):
                kinds = f"there is no kind {kind!r}; kinds are {', '.join(KINDS)}"
                raise ValueError(f"allow: {pattern!r}: {kinds}")
            self._rules.append((kind, subject if colon else "*"))

    def __contains__(self, hazard: Hazard) -> bool:
        names = {hazard.subject, hazard.library or hazard.subject}
        subjects = [subject for kind, subject in self._rules if fnmatchcase(hazard.kind, kind)]
        return any(fnmatchcase(name, subject) for subject in subjects for name in names)
