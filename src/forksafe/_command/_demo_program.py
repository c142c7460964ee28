"""The program that ``forksafe demo`` runs, in a fresh interpreter for each way to fork.

The parent makes a dictionary in a manager's process and assigns to it, which connects. Then it
forks, the child rebuilds the proxy from its pickled form, and both use the dictionary at once:
the parent assigns, the child reads all values. Each such use is a round trip to the manager.

Under a plain ``os.fork()`` both sides write into the one connection that the parent had made, and
each reads what was meant for the other (cpython gh-101320). Run by its path, so that under
``os.fork`` forksafe is not even imported.

On stdout: a line for each round trip, the side's name, and one line of JSON for a side's end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from multiprocessing.managers import SyncManager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ROUND_TRIPS = 500  # of each side
KEYS = 100
LIMIT = 20  # seconds until the kernel ends each process of this program, whoever still watches
AUTHKEY = b"forksafe demo"


class WrongAnswer(Exception):
    """What was read is not what this side had asked for."""


def main() -> None:
    """Run the program under the style that ``sys.argv[1]`` names."""
    # By the path to this file, its directory came first; the package is what is wanted.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    style = sys.argv[1]
    _limit()
    manager = SyncManager(authkey=AUTHKEY)
    manager.start(_limit)
    shared = manager.dict()
    rebuild, arguments = shared.__reduce__()
    arguments[-1]["authkey"] = AUTHKEY
    for key in range(KEYS):
        shared[key] = -1  # the first use connects

    def child() -> None:
        _limit()  # a child does not inherit it
        os.close(ready)
        os.write(go, b".")
        again = SyncManager(address=manager.address, authkey=AUTHKEY)
        again.connect()
        proxy: Any = rebuild(*arguments)
        for _ in range(ROUND_TRIPS):
            values = list(proxy.values())
            if len(values) != KEYS:
                raise WrongAnswer(f"{len(values)} values instead of {KEYS}")
            _tell("child")

    def parent() -> None:
        os.close(go)
        os.read(ready, 1)  # the child is there: both sides at once
        assign: Callable[[int, int], object] = shared.__setitem__
        for number in range(ROUND_TRIPS):
            # shared[key] = number, with a look at the answer.
            answer = assign(number % KEYS, number)
            if answer is not None:
                raise WrongAnswer(f"a {type(answer).__name__} in answer to an assignment")
            _tell("parent")

    ready, go = os.pipe()
    _STYLES[style](lambda: _side("child", child), lambda: _side("parent", parent))
    manager.shutdown()


def _by(fork: Callable[[], int], child: Callable[[], int], parent: Callable[[], int]) -> None:
    pid = fork()
    if pid == 0:
        os._exit(child())
    status = parent()
    os.waitpid(pid, 0)
    if status:
        sys.exit(status)


def _os_fork(child: Callable[[], int], parent: Callable[[], int]) -> None:
    _by(os.fork, child, parent)


def _safe_fork(child: Callable[[], int], parent: Callable[[], int]) -> None:
    import forksafe

    _by(forksafe.safe_fork, child, parent)


def _install(child: Callable[[], int], parent: Callable[[], int]) -> None:
    import forksafe

    forksafe.install()
    _by(os.fork, child, parent)


def _forked(child: Callable[[], int], parent: Callable[[], int]) -> None:
    import forksafe

    with forksafe.forked() as fork:
        sys.exit(child()) if fork.is_child else parent()


_STYLES: dict[str, Callable[[Callable[[], int], Callable[[], int]], None]] = {
    "os.fork": _os_fork,
    "safe_fork": _safe_fork,
    "install + os.fork": _install,
    "forked": _forked,
}


def _side(name: str, work: Callable[[], None]) -> int:
    outcome = "ok"
    try:
        work()
    except Exception as exc:
        outcome = traceback.format_exception_only(type(exc), exc)[-1].strip()
        outcome = outcome.removeprefix(f"{type(exc).__module__}.")
    _tell(json.dumps({"side": name, "outcome": outcome}))
    return 0 if outcome == "ok" else 1


def _tell(line: str) -> None:
    # One write, and so one piece; after a line break, whatever a traceback has left before it.
    os.write(1, f"\n{line}\n".encode())


def _limit() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT)


if __name__ == "__main__":
    main()
