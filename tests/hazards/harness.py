"""Run one hazard's program in a fresh interpreter, under any way to fork.

A hazard test file holds ``program(fork)``: what a user's program does, from the state that the
fork breaks to the assertion that the child (and the parent) is whole. `run` executes it in a fresh
interpreter with the style of forking as its argument, so nothing leaks from test to test, and
returns how it went: `Outcome.healthy` only with exit status 0.

Styles: ``raw`` is plain ``os.fork()`` and ``process-plain`` a ``multiprocessing.Process``, both
with forksafe not even imported; `OURS` are the four of forksafe. A style may name the package it
is about, as in ``hook:billiard``: it is ``fork.package`` then, and ``process`` starts its Process.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import re
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

if TYPE_CHECKING:
    from sessions import Outcome

OURS = ("safe_fork", "hook", "forked", "process")
PYPY = sys.implementation.name == "pypy"


_NOT_RUN = 99  # the exit status where the program could not even be loaded


class Broken(Exception):
    """The child hung, died, or raised."""


class Child:
    """The parent's side of one child."""

    def __init__(self, pid: int, fd: int, style: str, handle: Any = None) -> None:
        self.pid = pid
        self._fd = fd
        self._style = style
        self._handle = handle
        self.exitcode: int | None = None

    def result(self, timeout: float = 10.0) -> Any:
        """Return what the child's target returned; raise Broken where it did not."""
        data = b""
        deadline = time.monotonic() + timeout
        while True:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                os.kill(self.pid, signal.SIGKILL)
                raise Broken(f"the child hung: no result after {timeout} s")
            part = os.read(self._fd, 65536)
            data += part
            if not part or data.endswith(b"."):  # b".": the end of every pickle
                break
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
            if self._handle.exitcode is None:
                os.kill(self.pid, signal.SIGKILL)
                raise Broken(f"the child does not end: {timeout} s")
            self.exitcode = self._handle.exitcode
            return self._handle.exitcode
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exitcode = os.waitstatus_to_exitcode(status)
                return self.exitcode
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise Broken(f"the child does not end: {timeout} s")


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
        return importlib.import_module(self._package or "multiprocessing")

    def module(self, name: str) -> Any:
        """The package's submodule `name`."""
        return importlib.import_module(f"{self.package.__name__}.{name}")

    def __call__(self, target: Callable[..., Any], *args: Any, end: str = "exit") -> Child:
        read, write = os.pipe()

        def body() -> None:
            os.close(read)
            try:
                answer = ("returned", target(*args))
            except BaseException as exc:
                answer = (
                    "raised",
                    "".join(traceback.format_exception_only(type(exc), exc)).strip(),
                )
            os.write(write, pickle.dumps(answer))
            os.close(write)
            if end == "_exit":
                os._exit(0)

        child = getattr(self, "_" + self.style.replace("-", "_"))(body, read)
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

    def _by(self, fork: Callable[[], int], body: Callable[[], None], read: int) -> Child:
        pid = fork()
        if pid == 0:
            body()
            sys.exit(0)
        return Child(pid, read, self.style)

    def _raw(self, body: Callable[[], None], read: int) -> Child:
        return self._by(os.fork, body, read)

    def _hook(self, body: Callable[[], None], read: int) -> Child:
        return self._by(os.fork, body, read)

    def _safe_fork(self, body: Callable[[], None], read: int) -> Child:
        import forksafe

        return self._by(forksafe.safe_fork, body, read)

    def _process_plain(self, body: Callable[[], None], read: int) -> Child:
        process = self.package.get_context("fork").Process(target=body)
        process.start()
        assert process.pid is not None
        return Child(process.pid, read, self.style, process)

    _process = _process_plain

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
        return Child(fork.pid, read, self.style, _ForkHandle(block, fork))


class _ForkHandle:
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
        return self._fork.exitcode


def run(
    program: Callable[..., None],
    style: str,
    *,
    timeout: float = 40.0,
    idle: float | None = None,
    options: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> Outcome:
    """Run `program`, a function of a test file, in a fresh interpreter under `style`.

    Args:
        program: A module-level function that takes a `Forker`.
        style: See the top of this file.
        timeout: Seconds until everything that the program started is killed.
        idle: Seconds of idleness until then; None: no limit.
        options: Options of the interpreter.
        env: Environment variables to add.
    """
    import sessions  # here: the fresh interpreter has no use for it

    path = program.__code__.co_filename
    command = [sys.executable, "-W", "ignore::DeprecationWarning", *options, __file__]
    outcome = sessions.run([*command, path, program.__name__, style], timeout, idle, env)
    assert outcome.returncode != _NOT_RUN, outcome  # what did not run proves nothing either way
    return outcome


def run_plain(program: Callable[..., None], style: str, **kwargs: Any) -> Outcome:
    """Run a program that breaks, and do not wait long where it hangs."""
    import sessions

    return run(program, style, idle=sessions.IDLE, **kwargs)


@contextlib.contextmanager
def raising(expected: type[BaseException], match: str = "") -> Iterator[list[BaseException]]:
    """As ``pytest.raises()``, for programs; what was raised is in the list afterwards."""
    caught: list[BaseException] = []
    try:
        yield caught
    except expected as exc:
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
    path, function, style = sys.argv[1:]
    sys.modules["pytest"] = _NoPytest()  # type: ignore[assignment] # it is no module
    sys.argv = [path]
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:0] = [here, os.path.dirname(here)]
    if style.partition(":")[0] in ("hook", "process"):
        import forksafe

        forksafe.install()
    namespace: dict[str, Any] = {"__name__": "program", "__file__": path}
    try:
        exec(compile(Path(path).read_text(), path, "exec"), namespace)
    except BaseException:
        traceback.print_exc()
        sys.exit(_NOT_RUN)
    namespace[function](Forker(style))


if __name__ == "__main__":
    main()
