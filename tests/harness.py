"""Run a program in a fresh interpreter, under any way to fork, and end whatever comes of it.

A test file holds its programs: functions at the top of the module, which import what they use.
``program(fork)`` does what a user's program does, from the state that the fork breaks to the
assertion that the child (and the parent) is whole. `run` executes it in a fresh interpreter, so
that nothing leaks from test to test, and returns the `Outcome`. A control, which runs a program
without forksafe, names the fault that must show: `Outcome.shows`.

Styles: ``raw`` is plain ``os.fork()`` and ``process-plain`` a ``multiprocessing.Process``, both
with forksafe not even imported; `OURS` are the four of forksafe; ``replace`` puts `safe_fork` in
the place of ``os.fork``. A style may name the package it is about, as in ``hook:billiard``: it is
``fork.package`` then, and ``process`` starts its Process.

The first half of this file runs in the fresh interpreter, which loads what is imported at the top:
as little as possible. The second half runs in pytest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator

OURS = ("safe_fork", "hook", "forked", "process")
PYPY = sys.implementation.name == "pypy"
# The tracker's lock and pid are made anew at every fork, the child's end of its pipe is closed, and
# the wait for its end has a limit (cpython gh-146313).
NEW_TRACKER = (3, 13, 14) <= sys.version_info < (3, 14) or sys.version_info >= (3, 14, 5)
WITHOUT_GIL = not getattr(sys, "_is_gil_enabled", lambda: True)()
READS_STACKS = not PYPY and not WITHOUT_GIL  # of other threads, to prove which locks they hold
LINUX = sys.platform.startswith("linux")

_TESTS = os.path.dirname(os.path.abspath(__file__))
NOT_RUN = 99  # the exit status where the program could not even be loaded

# --- in the fresh interpreter ---------------------------------------------------------------------


class Broken(Exception):
    """The child hung, died, or raised."""


class Child:
    """The parent's side of one child."""

    def __init__(self, pid: int, fd: int, wait: Callable[[float], int | None]) -> None:
        self.pid = pid
        self._fd = fd
        self._wait = wait  # for so many seconds, for the exit code

    def result(self, timeout: float = 10.0) -> Any:
        """Return what the child's target returned; raise Broken where it did not."""
        import pickle
        import select

        data = b""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while not data.endswith(b"."):  # the end of every pickle
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                os.kill(self.pid, signal.SIGKILL)
                raise Broken(f"the child hung: no result after {timeout} s")
            part = os.read(self._fd, 65536)
            if not part:
                raise Broken("the child ended without a result")
            data += part
        kind, value = pickle.loads(data)
        if kind == "raised":
            raise Broken(f"the child raised: {value}")
        return value

    def close(self) -> None:
        """Close the pipe by which the result comes."""
        os.close(self._fd)

    def join(self, timeout: float = 10.0) -> int:
        """Wait for the child's end; return its exit code. Raise Broken where it does not end."""
        code = self._wait(timeout)
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            raise Broken(f"the child hung: it does not end within {timeout} s")
        return code


class Forker:
    """What a program is given: ``fork(target, *args)`` runs ``target(*args)`` in a new child.

    ``end``: how the child ends. ``"exit"`` as a program does (finalizers and all), ``"_exit"`` at
    once. ``fork.style`` tells the style, ``fork.package`` the package it is about:
    ``multiprocessing``, unless the style names another.
    """

    def __init__(self, style: str) -> None:
        self.style, _, self._package = style.partition(":")

    @property
    def package(self) -> Any:
        """The package whose objects the program is to use; imported here."""
        return self.module("")

    def module(self, name: str) -> Any:
        """The package's submodule `name`."""
        import importlib

        return importlib.import_module(f"{self._package or 'multiprocessing'}.{name}".rstrip("."))

    def os_fork(self) -> int:
        """Fork as the style's programs do that call a function like ``os.fork``."""
        if self.style == "safe_fork":
            import forksafe

            return forksafe.safe_fork()
        assert self.style in ("raw", "hook", "replace"), self.style
        return os.fork()

    def __call__(self, target: Callable[..., Any], *args: Any, end: str = "exit") -> Child:
        import pickle

        read, write = os.pipe()

        def body() -> None:
            os.close(read)
            try:
                answer = ("returned", target(*args))
            except BaseException as exc:
                import traceback

                lines = traceback.format_exception_only(type(exc), exc)
                answer = ("raised", "".join(lines).strip())
            os.write(write, pickle.dumps(answer))
            os.close(write)
            if end == "_exit":
                os._exit(0)

        if self.style == "forked":
            pid, wait = _by_forked(body)
        elif self.style in ("process", "process-plain"):
            process = self.package.get_context("fork").Process(target=body)
            process.start()
            pid, wait = process.pid, lambda timeout: process.join(timeout) or process.exitcode
        else:
            pid = self.os_fork()
            if pid == 0:
                body()
                sys.exit(0)
            wait = _waiting_for(pid)
        os.close(write)
        return Child(pid, read, wait)

    def run(self, target: Callable[..., Any], *args: Any, end: str = "exit") -> Any:
        """Fork, and return the child's result when the child has ended well."""
        child = self(target, *args, end=end)
        try:
            value = child.result()
        finally:
            child.close()
        code = child.join()
        if code != 0:
            raise Broken(f"the child ended with exit code {code}")
        return value


def _by_forked(body: Callable[[], None]) -> tuple[int, Callable[[float], int | None]]:
    # The block of forked() waits at its end, so a thread of its own would be needed to go on beside
    # it; the programs want the parent free, so the block is entered by hand.
    import forksafe

    block = forksafe.forked(check=False)
    fork = block.__enter__()
    if fork.is_child:
        try:
            body()
        except BaseException:
            block.__exit__(*sys.exc_info())
        block.__exit__(None, None, None)

    def wait(timeout: float) -> int | None:
        try:
            code = fork.wait(timeout)
        except TimeoutError:
            return None
        block.__exit__(None, None, None)
        return code

    return fork.pid, wait


def _waiting_for(pid: int) -> Callable[[float], int | None]:
    def wait(timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return None

    return wait


@contextlib.contextmanager
def raising(expected: type[BaseException], match: str = "") -> Iterator[list[BaseException]]:
    """As ``pytest.raises()``, for programs; what was raised is in the list afterwards."""
    caught: list[BaseException] = []
    try:
        yield caught
    except expected as exc:
        import re

        assert re.search(match, str(exc)), f"{exc} does not match {match}"
        caught.append(exc)
    else:
        raise AssertionError(f"{expected.__name__} was not raised")


class _NoPytest:
    """In place of pytest, which takes longer to import than most programs to run.

    A test file decorates its tests with it when it is loaded, and they do not run there.
    """

    raises = staticmethod(raising)

    def __getattr__(self, name: str) -> _NoPytest:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args and callable(args[0]) else self


def main() -> None:
    """Run what `sys.argv` names: a file, a function of it or ``""``, a style, and arguments."""
    path, function, style, *args = sys.argv[1:]
    sys.path[:] = [os.path.dirname(path), *filter(None, sys.path)]
    if style.partition(":")[0] in ("hook", "process", "replace"):
        import forksafe

        if style == "replace":
            os.fork = forksafe.safe_fork
        else:
            forksafe.install()
    if not function:
        import runpy

        sys.argv = [path, *args]
        sys.path.remove(_TESTS)  # the program knows nothing of these tests
        runpy.run_path(path, run_name="__main__")
        return
    sys.argv = [path]
    sys.modules["pytest"] = _NoPytest()  # type: ignore[assignment] # it is no module
    namespace: dict[str, Any] = {"__name__": "program", "__file__": path}
    try:
        exec(SourceFileLoader("program", path).get_code("program") or "", namespace)
        program = namespace[function]
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(NOT_RUN)
    answer = program(Forker(style), *args) if style else program(*args)
    if answer is not None:
        import json

        print(json.dumps(answer, default=vars), flush=True)
        sys.stderr.flush()  # PyPy's has a buffer
        os._exit(0)  # what the program left behind is not waited for


# --- in pytest ------------------------------------------------------------------------------------

# Seconds of idleness after which a program that is expected to hang is taken to do so: together its
# threads have run for no longer than a loop does that looks and sleeps.
IDLE = 1.0
_SOME = 10_000_000  # nanoseconds in a second
_MISTAKES = ("NameError: ", "UnboundLocalError: ", "ModuleNotFoundError: ", "SyntaxError: ")
_QUIET = ("-W", "ignore::DeprecationWarning")
_MARK = "FORKSAFE_TESTS_STARTED"
_START = f"import sys; sys.path.insert(0, {_TESTS!r}); import harness; harness.main()"


class Outcome(NamedTuple):
    """How a program went."""

    returncode: int | None  # None: it hung, and was killed
    stdout: str
    stderr: str

    @property
    def healthy(self) -> bool:
        return self.returncode == 0

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def value(self) -> Any:
        """What the program returned, by way of JSON."""
        import json

        assert self.healthy, self
        return json.loads(self.stdout.splitlines()[-1])

    def shows(self, *faults: str) -> bool:
        """Tell whether it failed, with one of `faults` in its output, ``hung`` where it hung.

        The source lines of a traceback do not count, as they hold the messages of assertions that
        did not fail; nor does anything where a mistake in the program may be what stopped it.
        """
        lines = [line for line in self.output.splitlines() if not line.startswith(" ")]
        found = [fault for fault in faults if any(fault in line for line in lines)]
        mistakes = [line for line in lines for mistake in _MISTAKES if mistake in line]
        return not self.healthy and bool(found) and not mistakes

    def __str__(self) -> str:
        return f"exit status {self.returncode}\n{self.output}"


class Running(NamedTuple):
    """A line of the process table."""

    pid: int
    parent: int
    session: int
    state: str


def process_ids() -> set[int]:
    """Return the ids of all processes of this machine; empty where there is no ``/proc``."""
    return {int(name) for name in (os.listdir("/proc") if LINUX else ()) if name.isdigit()}


def process_table(pids: Iterable[int]) -> dict[int, Running]:
    """Look processes up; left out is one that has ended, but for zombies."""
    found = {}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, parent, _, session, *_ = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[pid] = Running(pid, int(parent), int(session), state.decode())
    return found


class Started:
    """Commands that were started, and all that came of them, wherever it has gone.

    A process is known by a mark in its environment, which it keeps when it leaves its parent and
    its session; by its session; or by a parent that is known.
    """

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._strangers = process_ids()  # they cannot be ours, and need not be looked at
        self._popens: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], env: dict[str, str], **options: Any) -> Any:
        """Start a command in a session of its own, with `env` as its environment."""
        import subprocess

        options.update(env={**env, _MARK: self._mark}, start_new_session=True)
        self._popens.append(subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, **options}))
        return self._popens[-1]

    def alive(self) -> list[Running]:
        """Return the processes that are there, but for zombies."""
        table = process_table(process_ids() - self._strangers)
        sessions = {popen.pid for popen in self._popens}
        ours = {process.pid for process in table.values() if self._knows(process, sessions)}
        more = ours
        while more:
            more = {process.pid for process in table.values() if process.parent in more} - ours
            ours |= more
        return [table[pid] for pid in ours if table[pid].state not in "ZX"]

    def _knows(self, process: Running, sessions: set[int]) -> bool:
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                environ = file.read().split(b"\0")
        except OSError:  # it has ended, or is somebody else's
            return False
        marks = [entry for entry in environ if entry.startswith(_MARK.encode())]
        return f"{_MARK}={self._mark}".encode() in marks or (
            not marks and process.session in sessions
        )

    def _used(self) -> int:
        """Return the nanoseconds for which their threads have run: proc(5), schedstat."""
        used = 0
        for process in self.alive():
            try:
                for task in os.listdir(f"/proc/{process.pid}/task"):
                    with open(f"/proc/{process.pid}/task/{task}/schedstat") as file:
                        used += int(file.read().split()[0])
            except OSError:
                pass  # it has ended
        return used

    def wait(self, timeout: float, idle: float | None = None, lives_on: bool = False) -> bool:
        """Wait until all have ended; with `lives_on`, those that were started here.

        Return False where they do not: within `timeout` seconds, or when nothing ran for `idle`.
        """
        start = looked = since = time.monotonic()
        before = 0
        while None in [popen.poll() for popen in self._popens] or (not lives_on and self.alive()):
            time.sleep(0.005)
            now = time.monotonic()
            if idle is not None and LINUX and now - looked > idle / 5:
                looked, used = now, self._used()
                if used - before > _SOME * idle:
                    since, before = now, used
                if now - since > idle:
                    return False
            if now - start > timeout:
                return False
        return True

    def end(self) -> None:
        """Kill what is left."""
        deadline = time.monotonic() + 20
        while left := [process.pid for process in self.alive()] or [
            -popen.pid for popen in self._popens if popen.poll() is None
        ]:
            assert time.monotonic() < deadline, f"these cannot be killed: {left}"
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Return ours and `more`, without what would hide what a fork does to buffers."""
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**ours, **(more or {})}


def command(
    words: Iterable[str | os.PathLike[str]],
    *,
    env: dict[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: str = "",
    merged: bool = False,
    timeout: float = 40.0,
    idle: float | None = None,
    lives_on: bool = False,
) -> Outcome:
    """Run a command, and end all that came of it.

    Args:
        words: The command. It starts in a session of its own.
        env: Its whole environment; None: `environment`.
        cwd: Where it runs.
        stdin: What it can read.
        merged: Whether stderr is in `Outcome.stdout`, in the order in which it was written.
        timeout: Seconds until it is said to hang.
        idle: Seconds of idleness until it is said to hang; None: no limit.
        lives_on: Whether what it has started may live on at its end; otherwise that is a hang.
    """
    import tempfile

    started = Started()
    with contextlib.ExitStack() as files:
        out, err, into = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        options: dict[str, Any] = {"cwd": cwd, "stdout": out, "stderr": out if merged else err}
        if stdin:
            into.write(stdin.encode())
            into.seek(0)
            options["stdin"] = into
        popen = started.start([os.fspath(word) for word in words], env or environment(), **options)
        try:
            ended = started.wait(timeout, idle, lives_on)
        finally:
            started.end()
        out.seek(0)
        err.seek(0)
        stdout, stderr = (file.read().decode(errors="replace") for file in (out, err))
    if not ended:
        stderr += f"\nhung: not at its end within {timeout} s, or idle\n"
    return Outcome(popen.returncode if ended else None, stdout, stderr)


def python(
    *words: str | os.PathLike[str],
    env: dict[str, str] | None = None,
    options: Iterable[str] = (),
    quiet: bool = True,
    **limits: Any,
) -> Outcome:
    """Run this interpreter.

    Args:
        words: What follows ``python`` and its options.
        env: Environment variables to add.
        options: The interpreter's.
        quiet: Whether no DeprecationWarning is shown.
        limits: And what else there is: see `command`.
    """
    options = [*(_QUIET if quiet else ()), *options]
    outcome = command([sys.executable, *options, *words], env=environment(env), **limits)
    print(outcome)  # pytest shows it where the test fails
    return outcome


def command_of(program: Callable[..., Any], style: str, *args: str) -> list[str]:
    """Return the command that runs a program: for those that talk to it as it runs. See `run`."""
    return [sys.executable, *_QUIET, *_words(program, style, *args)]


def _words(program: Callable[..., Any], style: str, *args: str) -> list[str]:
    return ["-c", _START, program.__code__.co_filename, program.__name__, style, *args]


def run(program: Callable[..., Any], style: str, *args: str, **limits: Any) -> Outcome:
    """Run `program`, a function of a test file, in a fresh interpreter under `style`.

    Args:
        program: A module-level function that takes a `Forker` and `args`. What it returns is
            `Outcome.value`; it ends at once then.
        style: See the top of this file. With ``""`` the program takes `args` alone.
        args: More arguments of the program.
        limits: And options: see `python`.
    """
    outcome = python(*_words(program, style, *args), **limits)
    assert outcome.returncode != NOT_RUN, outcome  # what did not run proves nothing either way
    return outcome


def run_plain(program: Callable[..., Any], style: str, *args: str, **limits: Any) -> Outcome:
    """Run a program that breaks, and do not wait long where it hangs."""
    return run(program, style, *args, idle=IDLE, **limits)


def run_file(path: str | os.PathLike[str], style: str, *args: str, **limits: Any) -> Outcome:
    """Run a file as a user's program, which knows nothing of forksafe."""
    return python("-c", _START, path, "", style, *args, **limits)


def script(source: str, *options: str, **limits: Any) -> Outcome:
    """Run program text, with nothing before it; `options` are the interpreter's."""
    import textwrap

    return python("-c", textwrap.dedent(source), options=options, **limits)
