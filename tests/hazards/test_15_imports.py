"""Row 15: a module that another thread is importing at the fork is imported anew by the child."""

from __future__ import annotations

import sys
import time
from typing import Any, Callable

import pytest
from harness import Forker, run, run_plain

NO_SUCH_THREAD = "no thread of the child has the number of the one that is gone"

# The modules stop at `gate`, a module of the program's, where another thread imports them.
HALF_WAY = """
import gate
before = 1
gate.stop(__name__)
after = 2
"""


def _write(**files: str) -> None:
    """Make an importable folder of modules; ``__`` in a name is a slash."""
    import os
    import sys
    import tempfile
    import types

    folder = tempfile.mkdtemp()
    for name, text in files.items():
        path = os.path.join(folder, *name.split("__")) + ".py"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path.replace("init.py", "__init__.py"), "w") as file:
            file.write(text)
    sys.path.insert(0, folder)
    sys.modules["gate"] = types.ModuleType("gate")


class _Importing:
    """Another thread, stopped inside the import of a module."""

    def __init__(self, name: str, at: str | None = None) -> None:
        import importlib
        import sys
        import threading

        gate: Any = sys.modules["gate"]
        self._go_on = threading.Event()
        there = threading.Event()
        self.error: BaseException | None = None

        def stop(module: str) -> None:
            if threading.current_thread() is self._thread and module == (at or name):
                there.set()
                self._go_on.wait()

        def load() -> None:
            try:
                importlib.import_module(name)
            except BaseException as exc:
                self.error = exc
                there.set()

        gate.stop = stop
        self._thread = threading.Thread(target=load, daemon=True)
        self._thread.start()
        there.wait()
        assert self.error is None, self.error

    def finish(self) -> None:
        self._go_on.set()
        self._thread.join()
        assert self.error is None, self.error


def program_module(fork: Forker) -> None:
    import sys

    _write(halfway=HALF_WAY)
    importing = _Importing("halfway")

    def in_child() -> tuple[int, int]:
        import halfway

        return halfway.before, halfway.after

    assert fork(in_child, end="_exit").result(8) == (1, 2)
    importing.finish()
    assert sys.modules["halfway"].after == 2


def program_in_a_thread_of_the_child(fork: Forker) -> None:
    """Which can have the number of the thread that is gone."""
    _write(halfway=HALF_WAY)
    importing = _Importing("halfway")

    def in_child() -> list[int]:
        import importlib
        import threading

        found: list[int] = []

        def load() -> None:
            found.append(importlib.import_module("halfway").after)

        threads = [threading.Thread(target=load, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(8)
        return found

    assert fork(in_child, end="_exit").result() == [2, 2, 2]
    importing.finish()


def program_package(fork: Forker) -> None:
    """A package is half-way, one of its submodules is finished, one has its turn."""
    import sys

    _write(
        package__init="import gate\nfrom .first import NAME\nfrom .second import after\nlast = 3\n",
        package__first="NAME = 'first'\n",
        package__second=HALF_WAY,
    )
    importing = _Importing("package", at="package.second")

    def in_child() -> list[object]:
        import package
        import package.second

        assert sys.modules["package"] is package
        return [
            package.first.NAME,
            package.NAME,
            package.second.after,
            package.after,
            package.last,
        ]

    assert fork(in_child, end="_exit").result(8) == ["first", "first", 2, 2, 3]
    importing.finish()
    package = sys.modules["package"]
    assert package.first.NAME == "first"
    assert package.second.after == 2
    assert package.last == 3


def program_submodule(fork: Forker) -> None:
    """The package is finished, and stays; a submodule of it is half-way."""
    import importlib
    import sys

    _write(package__init="", package__first="", package__second=HALF_WAY)
    import package.first

    importing = _Importing("package.second")

    def in_child() -> int:
        assert sys.modules["package"] is package
        assert sys.modules["package.first"] is package.first
        second = importlib.import_module("package.second")
        assert package.second is second
        return int(second.after)

    assert fork(in_child, end="_exit").result(8) == 2
    importing.finish()
    assert package.second.after == 2


def program_finder(fork: Forker) -> None:
    """The other thread holds the module's lock, and the module is not there yet."""
    import importlib.abc
    import importlib.machinery
    import sys

    _write(halfway=HALF_WAY)

    class Loader(importlib.abc.Loader):
        def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
            sys.modules["gate"].stop("create")

        def exec_module(self, module: object) -> None:
            module.after = 2  # type: ignore[attr-defined]

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
            if name == "found":
                return importlib.machinery.ModuleSpec("found", Loader())
            return None

    sys.meta_path.insert(0, Finder())
    importing = _Importing("found", at="create")
    assert "found" not in sys.modules

    def in_child() -> int:
        import found

        return int(found.after)

    assert fork(in_child, end="_exit").result(8) == 2
    importing.finish()


def program_own_import(fork: Forker) -> None:
    """The module that is being imported forks, and its import goes on in both processes."""
    import sys

    _write(
        halfway=HALF_WAY,
        forking="import gate\nbefore = 1\nanswer = gate.fork()\nafter = 2\n",
        outer__init="import gate\nfrom . import inner\nafter = 2\n",
        outer__inner="import gate\nimport forking\nafter = 2\n",
    )
    importing = _Importing("halfway")
    gate: Any = sys.modules["gate"]

    def in_child() -> tuple[object, ...]:
        # The names of this very import are still those of the half-initialised modules.
        import forking as mine

        assert mine.before == 1
        assert not hasattr(mine, "after")
        import outer

        assert not hasattr(outer, "after")
        import halfway

        return (halfway.after,)

    if fork.style in ("process", "process-plain"):
        gate.fork = lambda: fork(in_child, end="_exit").result(8)
        import outer.inner

        assert sys.modules["forking"].answer == (2,)
    else:
        import os

        function = os.fork
        if fork.style == "safe_fork":
            import forksafe

            function = forksafe.safe_fork
        gate.fork = function
        import outer.inner

        pid = sys.modules["forking"].answer
        assert (outer.after, outer.inner.after, sys.modules["forking"].after) == (
            2,
            2,
            2,
        )
        if pid == 0:
            import halfway

            os._exit(halfway.after)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    importing.finish()


def program_waiting_thread(fork: Forker) -> None:
    """A second thread waits for the first's import, and a third for the forking thread's."""
    import importlib
    import sys
    import threading
    import time

    _write(halfway=HALF_WAY, forking="import gate\nanswer = gate.fork()\nafter = 2\n")
    importing = _Importing("halfway")
    found: list[int] = []
    bootstrap = sys.modules["_frozen_importlib"]

    def load(name: str) -> None:
        found.append(importlib.import_module(name).after)

    def wait_for(name: str) -> threading.Thread:
        thread = threading.Thread(target=load, args=(name,), daemon=True)
        thread.start()
        while True:
            lock = bootstrap._module_locks.get(name, lambda: None)()
            if lock is not None and lock.waiters:
                return thread

    def in_child() -> list[int]:
        found.clear()
        vars(sys.modules["gate"])["stop"] = lambda name: time.sleep(0.3)  # one waits for the other
        threads = []
        for _ in range(2):
            thread = threading.Thread(target=load, args=("halfway",), daemon=True)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join(8)
        return found

    def forking() -> list[int]:
        waiting = wait_for("forking")
        answer: list[int] = fork(in_child, end="_exit").result()
        threads.append(waiting)
        return answer

    threads = [wait_for("halfway")]
    gate: Any = sys.modules["gate"]
    gate.fork = forking
    import forking as module

    assert module.answer == [2, 2]
    importing.finish()
    for thread in threads:
        thread.join()
    assert found == [2, 2]


def program_recurring_thread(fork: Forker) -> None:
    """A thread of the child has the number of one that waited for the forking thread's import.

    It imports a module; that the forking thread waits for it is no deadlock.
    """
    import importlib
    import sys
    import threading

    _write(slow=HALF_WAY, forking="import gate\nanswer = gate.fork()\nafter = 2\n")
    bootstrap = sys.modules["_frozen_importlib"]
    gate: Any = sys.modules["gate"]

    def in_child() -> int | None:
        there, go_on = threading.Event(), threading.Event()

        def stop(name: str) -> None:
            there.set()
            go_on.wait()

        def load() -> None:
            recurs.append(threading.get_ident() == waiting.ident)
            if recurs[-1] and len(recurs) == recurs.index(True) + 1:
                importlib.import_module("slow")
            else:
                idle.wait()  # keeps its own number

        gate.stop = stop
        recurs: list[bool] = []
        idle = threading.Event()
        while True not in recurs:
            if len(recurs) == 50:
                return None
            count = len(recurs)
            threading.Thread(target=load, daemon=True).start()
            while len(recurs) == count:
                time.sleep(0.001)
        there.wait()
        threading.Timer(0.3, go_on.set).start()
        return int(importlib.import_module("slow").after)

    def forking() -> object:
        waiting.start()
        while True:
            lock = bootstrap._module_locks.get("forking", lambda: None)()
            if lock is not None and lock.waiters:
                return fork(in_child, end="_exit").result(8)
            time.sleep(0.001)

    waiting = threading.Thread(target=importlib.import_module, args=("forking",))
    gate.fork = forking
    import forking as module

    waiting.join()
    assert module.answer in (2, None)
    if module.answer is None:
        print(NO_SUCH_THREAD)


def program_nothing(fork: Forker) -> None:
    """No import is under way."""

    def in_child() -> str:
        import forksafe

        return (forksafe.last_reset() or {})["imports"]

    assert fork.run(in_child, end="_exit") == "not needed"


PROGRAMS = [
    program_module,
    program_in_a_thread_of_the_child,
    program_package,
    program_submodule,
    program_finder,
    program_waiting_thread,
    pytest.param(
        program_recurring_thread,
        marks=pytest.mark.skipif(
            sys.version_info < (3, 12), reason="such a thread's first import made up for it"
        ),
    ),
]


@pytest.mark.parametrize("program", [*PROGRAMS, program_own_import, program_nothing])
def test_the_child_imports_from_scratch(program: Callable[..., None], style: str) -> None:
    """And the parent's own import is finished undisturbed."""
    if program is program_own_import and style == "forked":
        pytest.skip("the child of forked() never leaves the block, so no import goes on in it")
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_breaks_elsewhere(program: Callable[..., None], style: str) -> None:
    """The child waits for the thread that is gone, or finds half a module."""
    outcome = run_plain(program, style)
    if NO_SUCH_THREAD in outcome.stdout:
        pytest.skip(NO_SUCH_THREAD)
    assert outcome.shows("hung", "partially initialized module", "_DeadlockError"), outcome
