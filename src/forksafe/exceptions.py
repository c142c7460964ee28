"""The exceptions of forksafe, all of them public."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._hazard import Hazard

__all__ = ["ChildFailedError", "ForkHazardWarning", "ForksafeError", "UnsafeForkError"]


class ForksafeError(Exception):
    """The base class of forksafe's exceptions."""


class ChildFailedError(ForksafeError):
    """The child of a `forked()` block ended with an exit code other than 0.

    Args:
        pid: The child's process id.
        exitcode: The child's exit code; minus the number of the signal where a signal ended it.
        name: The child's name, for the message.
        reason: What ended the child, in one line: ``"LookupError: no such user"``. Empty where a
            signal or ``os._exit()`` ended it, or ``sys.exit(3)``.
        traceback: The last 8 KiB of the traceback that the child printed, or empty.
    """

    def __init__(self, pid: int, exitcode: int, name: str | None = None, reason: str = "",
                 traceback: str = "") -> None:  # fmt: skip
        super().__init__(pid, exitcode, name, reason, traceback)
        self.pid, self.exitcode, self.name = pid, exitcode, name
        self.reason, self.traceback = reason, traceback

    def __str__(self) -> str:
        who = f"{self.name} (pid {self.pid})" if self.name else f"pid {self.pid}"
        text = f"forked child {who} ended with exit code {self.exitcode}"
        if self.exitcode < 0:
            text = f"forked child {who} was ended by signal {-self.exitcode}"
        if self.reason:
            text += f": {self.reason}"
        elif self.exitcode > 0:
            text += " and told no reason (check=False accepts any exit code)"
        return f"{text}\n\nIn the child:\n{self.traceback}" if self.traceback else text


class UnsafeForkError(ForksafeError):
    """A fork was refused because of `hazards` that need action first (see `audit()`)."""

    def __init__(self, hazards: Iterable[Hazard]) -> None:
        self.hazards = tuple(hazards)
        super().__init__(self.hazards)

    def __str__(self) -> str:
        lines = "".join(f"\n  {hazard}\n    {hazard.remedy}" for hazard in self.hazards)
        things = "1 thing" if len(self.hazards) == 1 else f"{len(self.hazards)} things"
        return f"not forked: {things} would break in the child{lines}"


class ForkHazardWarning(RuntimeWarning):
    """A fork broke something in the child that only the program can mend (``on_hazard="warn"``)."""
