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

The first half of this file runs in the fresh interpreter, which loads what this file imports at
its top: as little as possible. The second half runs in pytest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator

OURS = ("safe_fork", "hook", "forked", "process")
PYPY = sys.implementation.name == "pypy"
LINUX = sys.platform.startswith("linux")

_TESTS = os.path.dirname(os.path.abspath(__file__))
_NOT_RUN = 99  # the exit status where the program could not even be loaded


# --- in the fresh interpreter ---------------------------------------------------------------------


class Broken(Exception):
    """The child hung, died, or raised."""


class Child:
    """The parent's side of one child."""

    def __init__(self, pid: int, fd: int, handle: Any = None) -> None:
        self.pid = pid
        self._fd = fd
        self._handle = handle
        self.exitcode: int | None = None

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
                break
            data += part
        if not data:
            raise Broken("the child ended without a result")
        kind, value = pickle.loads(data)
        if kind == "raised":
            raise Broken(f"the child raised: {value}")
        return value

    def join(self, timeout: float = 10.0) -> int:
        """Wait for the child's end; return its exit code. Raise Broken where it does not end."""
        if self._handle is not None:
            self._handle.join(timeout)
            self.exitcode = self._handle.exitcode
        deadline = time.monotonic() + timeout
        while self.exitcode is None:
            if self._handle is not None or time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise Broken(f"the child hung: it does not end within {timeout} s")
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exitcode = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.002)
        return self.exitcode


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
            child = self._forked(body, read)
        elif self.style in ("process", "process-plain"):
            process = self.package.get_context("fork").Process(target=body)
            process.start()
            child = Child(process.pid, read, process)
        else:
            pid = self.os_fork()
            if pid == 0:
                body()
                sys.exit(0)
            child = Child(pid, read)
        os.close(write)
        return child

    def run(self, target: Callable[..., Any], *args: Any, end: str = "exit") -> Any:
        """Fork, and return the child's result when the child has ended well."""
        child = self(target, *args, end=end)
        value = child.result()
        code = child.join()
        if code != 0:
            raise Broken(f"the child ended with exit code {code}")
        return value

    def _forked(self, body: Callable[[], None], read: int) -> Child:
        # The block of forked() waits at its end, so a thread of its own would be needed to go on
        # beside it; the programs want the parent free, so the block is entered by hand.
        import forksafe

        block = forksafe.forked(check=False)
        fork = block.__enter__()
        if fork.is_child:
            try:
                body()
            except BaseException:
                block.__exit__(*sys.exc_info())
            block.__exit__(None, None, None)
        return Child(fork.pid, read, _ForkHandle(block, fork))


class _ForkHandle:
    """A `forksafe.Fork` with the two names of a Process that `Child` uses."""

    def __init__(self, block: Any, fork: Any) -> None:
        self._block = block
        self._fork = fork

    def join(self, timeout: float) -> None:
        try:
            self._fork.wait(timeout)
        except TimeoutError:
            return
        self._block.__exit__(None, None, None)

    @property
    def exitcode(self) -> int | None:
        code: int | None = self._fork.exitcode
        return code


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
    """In place of pytest, which takes longer to import than the programs to run.

    What a test file does with it when it is loaded is to decorate its tests, and those do not run
    in the fresh interpreter. A program uses `raising`: ``with pytest.raises()`` fails.
    """

    def __getattr__(self, name: str) -> _NoPytest:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args and callable(args[0]) else self


def main() -> None:
    """Run what `sys.argv` names: a file, a function of it or ``""``, a style, and arguments."""
    path, function, style, *args = sys.argv[1:]
    sys.path[:] = [os.path.dirname(path), *filter(None, sys.path)]
    try:
        if style.partition(":")[0] in ("hook", "process", "replace"):
            import forksafe

            if style == "replace":
                os.fork = forksafe.safe_fork
            else:
                forksafe.install()
        if not function:
            sys.argv = [path, *args]
            sys.path.remove(_TESTS)  # the program knows nothing of these tests
            import runpy

            runpy.run_path(path, run_name="__main__")
            return
        sys.argv = [path]
        sys.modules["pytest"] = _NoPytest()  # type: ignore[assignment] # it is no module
        module = __import__(os.path.basename(path)[:-3])
        program = getattr(module, function)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(_NOT_RUN)
    answer = program(Forker(style), *args) if style else program(*args)
    if answer is not None:
        import json

        print(json.dumps(answer, default=vars), flush=True)
        os._exit(0)  # what the program left behind is not waited for


# --- in pytest ------------------------------------------------------------------------------------

# Seconds without any of its processes running, after which a program that is expected to hang is
# taken to do so. Who waits in a loop, by looking and sleeping, is idle: up to so many nanoseconds.
IDLE = 2.5
_SOME = 20_000_000

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

        The source lines of a traceback do not count: they hold the messages of assertions also
        where these did not fail.
        """
        lines = [line for line in self.output.splitlines() if not line.startswith(" ")]
        return not self.healthy and any(fault in line for fault in faults for line in lines)

    def __str__(self) -> str:
        return f"exit status {self.returncode}\n{self.output}"


class Running(NamedTuple):
    """A line of the process table."""

    pid: int
    parent: int
    session: int
    state: str


def process_table() -> dict[int, Running]:
    """Return all processes of this machine; empty where there is no ``/proc``."""
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            found[int(name)] = Running(int(name), int(fields[1]), int(fields[3]), fields[0])
    return found


def wait_until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Wait for something that only another process knows of, and that tells nobody."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)


class Started:
    """Commands that were started, and all that came of them, wherever it has gone.

    A process is known by a mark in its environment, which it keeps when it leaves its parent and
    its session; by its session; or by a parent that is known.
    """

    def __init__(self) -> None:
        self._mark = f"{_MARK}={os.getpid()}-{time.monotonic_ns()}".encode()
        self._popens: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], env: dict[str, str], **options: Any) -> Any:
        """Start a command in a session of its own, with `env` as its environment."""
        import subprocess

        name, _, value = self._mark.decode().partition("=")
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**env, name: value},
            **options,
        )
        self._popens.append(popen)
        return popen

    def alive(self) -> list[Running]:
        """Return the processes that are there, but for zombies."""
        table = {pid: process for pid, process in process_table().items() if process.state != "Z"}
        sessions = {popen.pid for popen in self._popens}
        ours = {process.pid for process in table.values() if self._knows(process, sessions)}
        more = ours
        while more:
            more = {process.pid for process in table.values() if process.parent in more} - ours
            ours |= more
        return [table[pid] for pid in ours]

    def _knows(self, process: Running, sessions: set[int]) -> bool:
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                environ = file.read().split(b"\0")
        except OSError:  # it has ended, or is somebody else's
            return False
        if any(entry.startswith(_MARK.encode()) for entry in environ):
            return self._mark in environ
        return process.session in sessions

    def running_time(self) -> int:
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
        used, pause = 0, 0.002
        while any(popen.poll() is None for popen in self._popens) or (
            not lives_on and self.alive()
        ):
            time.sleep(pause)
            pause = min(pause * 1.5, 0.03)
            now = time.monotonic()
            if idle is not None and LINUX and now - looked > idle / 5:
                looked, using = now, self.running_time()
                if using - used > _SOME:
                    since, used = now, using
                if now - since > idle:
                    return False
            if now - start > timeout:
                return False
        return True

    def end(self) -> None:
        """Kill what is left."""

        def killed() -> bool:
            left = False
            sessions = [-popen.pid for popen in self._popens]
            for pid in [process.pid for process in self.alive()] if LINUX else sessions:
                try:
                    os.kill(pid, signal.SIGKILL)
                    left = True
                except (ProcessLookupError, PermissionError):
                    pass
            return all(popen.poll() is not None for popen in self._popens) and not left

        wait_until(killed, "the end of processes that were killed")


def execute(
    source: str,
    argv: Iterable[str] = (),
    *,
    options: Iterable[str] = (),
    timeout: float = 40.0,
    idle: float | None = None,
    env: dict[str, str] | None = None,
    lives_on: bool = False,
) -> Outcome:
    """Run Python source in a fresh interpreter, and end all that came of it.

    Args:
        source: What ``python -c`` gets.
        argv: The program's arguments.
        options: The interpreter's.
        timeout: Seconds until the program is said to hang.
        idle: Seconds of idleness until it is said to hang; None: no limit.
        env: Environment variables to add.
        lives_on: Whether what it has started may live on at its end, and is ended here; otherwise
            that is a hang.
    """
    import tempfile

    # Unbuffered output would hide what a fork does to buffers.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", *options, "-c", source, *argv]
    started = Started()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        popen = started.start(command, {**environ, **(env or {})}, stdout=out, stderr=err)
        try:
            ended = started.wait(timeout, idle, lives_on)
        finally:
            started.end()
        out.seek(0)
        err.seek(0)
        stdout, stderr = (file.read().decode(errors="replace") for file in (out, err))
    if ended:
        return Outcome(popen.returncode, stdout, stderr)
    return Outcome(None, stdout, f"{stderr}\nhung: not at its end within {timeout} s, or idle\n")


def run(program: Callable[..., Any], style: str, *args: str, **limits: Any) -> Outcome:
    """Run `program`, a function of a test file, in a fresh interpreter under `style`.

    Args:
        program: A module-level function that takes a `Forker` and `args`. What it returns is
            `Outcome.value`; it ends at once then.
        style: See the top of this file. With ``""`` the program takes `args` alone.
        args: More arguments of the program.
        limits: And options: see `execute`.
    """
    outcome = execute(
        _START, [program.__code__.co_filename, program.__name__, style, *args], **limits
    )
    assert outcome.returncode != _NOT_RUN, outcome  # what did not run proves nothing either way
    return outcome


def run_plain(program: Callable[..., Any], style: str, *args: str, **limits: Any) -> Outcome:
    """Run a program that breaks, and do not wait long where it hangs."""
    return run(program, style, *args, idle=IDLE, **limits)


def run_file(path: str | os.PathLike[str], style: str, *args: str, **limits: Any) -> Outcome:
    """Run a file as a user's program, which knows nothing of forksafe."""
    return execute(_START, [str(path), "", style, *args], **limits)


def script(source: str, *options: str, argv: Iterable[str] = (), **limits: Any) -> Outcome:
    """Run program text, for what must be there before everything else."""
    import textwrap

    return execute(textwrap.dedent(source), argv, options=options, **limits)
