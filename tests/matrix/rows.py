"""Which program shows which hazard: a row of the matrix for each row of docs/hazards.md.

A new hazard is a line here: its number, a few words, the file in tests/hazards that holds its
``program(fork)``, and the names of the functions to run, all of which must go well.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

HAZARDS = Path(__file__).resolve().parents[1] / "hazards"

# Each way to fork: the name for the program that is run, and the one that the page shows.
STYLES = {
    "raw": "os.fork()",
    "two-lines": "two lines",
    "process-plain": "Process",
    "safe_fork": "safe_fork()",
    "hook": "install()",
    "forked": "forked()",
}
OURS = ("safe_fork", "hook", "forked")
POSIX = ("safe_fork", "hook")  # keep what POSIX says a child inherits


class Row(NamedTuple):
    """One hazard."""

    number: int
    what: str
    file: str  # a pattern, in tests/hazards
    programs: tuple[str, ...] = ("program",)
    env: tuple[tuple[str, str], ...] = ()  # variables that its programs read
    arguments: tuple[str, ...] = ()  # of all its programs
    # Ways to fork that do not mend it, on purpose: see the row in docs/hazards.md.
    on_purpose: tuple[str, ...] = ()

    @property
    def path(self) -> Path | None:
        """The test file; None where it is not there."""
        return next(iter(sorted(HAZARDS.glob(self.file))), None)


ROWS = (
    Row(1, "manager's proxies", "test_01_*.py"),
    Row(2, "mp.Queue", "test_02_*.py"),
    Row(3, "mp.RLock", "test_03_*.py"),
    Row(4, "locks of mp", "test_04_*.py"),
    Row(5, "finalizers", "test_05_*.py"),
    Row(6, "daemons killed", "test_06_*.py"),
    Row(7, "shared memory", "test_07_*.py"),
    Row(8, "resource tracker", "test_08_*.py", ("program_lock", "program_never_waits")),
    Row(9, "forkserver", "test_09_*.py"),
    Row(
        10,
        "process pools",
        "test_10_*.py",
        ("program", "executor_program"),
        env=(("KIND", "Pool"),),
    ),
    Row(11, "thread pools", "test_11_thread*.py"),
    Row(12, "signal wakeup", "test_12_*.py", ("shared_socket",)),
    Row(13, "asyncio's loops", "test_13_event*.py", ("readers", "closed_in_the_child")),
    Row(14, "stdout, stderr", "test_14_*.py", ("program_once", "program_inside_a_write")),
    Row(15, "imports", "test_15_*.py", ("program_module",)),
    Row(16, "signal handlers", "test_16_*.py", ("storm",)),
    Row(17, "TemporaryDirectory", "test_17_*.py", ("program_survives",)),
    Row(18, "temporary files", "test_18_*.py", ("files",), on_purpose=POSIX),
    Row(19, "exceptions", "test_19_*.py", ("program",), on_purpose=POSIX),
    Row(20, "log files", "test_20_*.py", ("text_stream", "binary_stream")),
    Row(21, "log handlers", "test_21_*.py", ("waiting_records", "socket_handler")),
    Row(22, "ghosts in conditions", "test_22_*.py", ("condition", "queue_of_items")),
    Row(23, "locks in queues", "test_24_*.py", ("mutex_of_a_queue",)),
    Row(24, "module locks", "test_24_*.py", ("held_by_a_thread",)),
    Row(25, "faulthandler", "test_25_*.py", ("armed",)),
    Row(
        26,
        "locks of any library",
        "test_26_*.py",
        ("locks_held_by_others", "re_entrant_locks_held_by_others"),
    ),
)
