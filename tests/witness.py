"""A witness to "exactly once": registered callbacks that count, and managers that are asked.

It registers objects in the after-fork registry of every family that is installed (billiard's is
multiprocessing's), one of whose callbacks raises, and holds a proxy at a real manager of each. A
child reports which callbacks ran in it and in what order, and how many references each manager
counts. For every process that lives they must be one more, since a proxy's callback takes one; when
the children have ended they are back where they were.
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
import signal
import sys
from importlib.util import find_spec
from typing import Any, Callable

# Bound here: gevent puts another in its place, which may hang, with plain os.fork too.
_waitpid = os.waitpid

# What shows where two processes read from one connection of a manager's: one of these.
MIXED_REPLIES = (
    *("hung", "UnpicklingError", "EOFError", "got end of file", "bad message length"),
    *("a reply to the other", "BrokenPipeError", "ConnectionResetError"),
    *("object of type 'NoneType' has no len()", "'NoneType' object is not iterable"),
)

Start = Callable[[Callable[[], object]], object]

FAMILIES = tuple(
    name for name in ("multiprocessing", "multiprocess", "billiard") if find_spec(name)
)
OBJECTS = 4  # registered in each family
RAISING = 1  # the one whose callback raises


class Registered:
    """An object of the program's, with something to do after a fork."""

    def __init__(
        self, calls: list[tuple[str, int]], label: tuple[str, int], raising: BaseException
    ) -> None:
        self._calls = calls
        self._label = label
        self._raising = raising

    def after_fork(self) -> None:
        self._calls.append(self._label)
        if self._label[1] == RAISING:
            raise self._raising


class Witness:
    """Made before the forks, in the process whose children it is to see.

    Args:
        raising: What one callback of each family raises; by default a ValueError.
        managers: Whether to ask real managers; they are processes, forked here.
        told: What is true in a child where the exceptions were told as they should be; by default
            they go where nobody hears of them.
    """

    def __init__(
        self,
        raising: BaseException | None = None,
        managers: bool = True,
        told: Callable[[], bool] | None = None,
    ) -> None:
        if raising is None:
            raising = ValueError("of a callback")
        if told is None:
            sys.unraisablehook = lambda args: None
        self._told = told or (lambda: True)
        self.calls: list[tuple[str, int]] = []
        self._objects: list[Registered] = []
        self._managers: dict[str, Any] = {}
        self._proxies: dict[str, Any] = {}
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        for name in FAMILIES if managers else ():
            self._managers[name] = importlib.import_module(name).get_context("fork").Manager()
        # After the last manager's fork, which would otherwise take references too.
        for name, manager in self._managers.items():
            self._proxies[name] = manager.dict()
            self._proxies[name]["used"] = "before the fork"
        for number in range(OBJECTS):
            for name in FAMILIES:  # in turns, so that the order within a registry is theirs alone
                registered = Registered(self.calls, (name, number), raising)
                util = importlib.import_module(f"{name}.util")
                util.register_after_fork(registered, Registered.after_fork)
                self._objects.append(registered)
        self.calls.clear()
        self._before = self.references()

    def references(self) -> dict[str, int]:
        """Return how many references each manager counts for its dict."""
        counts = {}
        for name, manager in self._managers.items():
            ident = self._proxies[name]._token.id
            found = re.search(rf"{ident}:\s+refcount=(\d+)", manager._debug_info())
            assert found is not None, manager._debug_info()
            counts[name] = int(found[1])
        return counts

    def see(self, start: Start, depth: int = 1, times: int = 3) -> None:
        """Check children one after another.

        Args:
            start: Starts a child that calls what it is given and then ends normally, and waits for
                its end.
            depth: How many forks lead to the child that calls it.
            times: How many children.
        """
        for _ in range(times):
            read, write = os.pipe()
            start(lambda write=write: self._report(write))  # type: ignore[misc]
            os.close(write)
            with open(read, "rb") as stream:
                data = stream.read()
            assert data, "the child never reported"
            calls, references, mask = pickle.loads(data)
            for family in FAMILIES:
                numbers = [number for name, number in calls if name == family]
                assert numbers == [*range(OBJECTS)] * depth, f"of {family} ran: {numbers}"
            expected = {name: number + depth for name, number in self._before.items()}
            assert references == expected, (references, expected)
            assert mask == self.mask, f"signals left blocked in the child: {mask}"
        assert self.references() == self._before, (self.references(), self._before)
        assert self.calls == [], "a callback ran in the parent"
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == self.mask

    def _report(self, write: int) -> None:
        assert self._told(), "the exceptions of callbacks were not told"
        for proxy in self._proxies.values():
            assert proxy["used"] == "before the fork"
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with open(write, "wb") as stream:
            pickle.dump((list(self.calls), self.references(), mask), stream)


def by(fork: Callable[[], int], end: Callable[[int], object] = sys.exit) -> Start:
    """Return a start by a function like ``os.fork``; the child ends as programs do, or by `end`."""

    def start(target: Callable[[], object]) -> None:
        pid = fork()
        if pid == 0:
            target()
            end(0)
        _, status = _waitpid(pid, 0)
        assert status == 0, f"the child's wait status is {status}"

    return start


def by_forked(target: Callable[[], object]) -> None:
    """Start by `forksafe.forked`."""
    import forksafe

    with forksafe.forked() as fork:
        if fork.is_child:
            target()


def by_process(package: Any, cls: Any = None) -> Start:
    """Return a start by ``Process``, of the package, or by a subclass of it."""

    def start(target: Callable[[], object]) -> None:
        process = (cls or package.get_context("fork").Process)(target=target)
        process.start()
        process.join()
        assert process.exitcode == 0, f"the Process's exit code is {process.exitcode}"

    return start


def within(outer: Start, inner: Start) -> Start:
    """Return a start by `inner` in a child that `outer` started."""

    def start(target: Callable[[], object]) -> None:
        outer(lambda: inner(target))

    return start


def chain(*links: str) -> list[list[int]]:
    """Fork, in the child fork again, and so on; return what each process counts of its callbacks.

    Args:
        links: A way to fork each, and behind a comma ``install`` or ``uninstall``, done before.

    Returns:
        For each child its depth, and how often the callback ran in it and in all up to it.
    """
    import json
    from multiprocessing.util import register_after_fork

    import forksafe

    read, write = os.pipe()
    calls: list[int] = []

    class Resource:
        pass

    resource = Resource()
    register_after_fork(resource, lambda _: calls.append(os.getpid()))
    ways: dict[str, Start] = {
        "os.fork": by(os.fork, os._exit),
        "safe_fork": by(forksafe.safe_fork, os._exit),
        "forked": by_forked,
        "Process": by_process(importlib.import_module("multiprocessing")),
    }

    def go_on(depth: int) -> None:
        if depth:  # the root has not been forked
            told = [depth, calls.count(os.getpid()), len(calls)]
            os.write(write, json.dumps(told).encode() + b"\n")
        if depth == len(links):
            return
        way, _, switch = links[depth].partition(",")
        if switch:
            getattr(forksafe, switch)()

        def child() -> None:
            go_on(depth + 1)
            if way not in ("forked", "Process"):
                forksafe.after_fork_in_child()  # too late to count, and must do no harm

        ways[way](child)

    go_on(0)
    os.close(write)
    with open(read) as file:
        return [json.loads(line) for line in file]
