"""Run one hazard's program in a fresh interpreter, under any way to fork.

A hazard test file holds ``program(fork)``: what a user's program does, from the state that the
fork breaks to the assertion that the child (and the parent) is whole. `run` executes it in a fresh
interpreter with the style of forking as its argument, so nothing leaks from test to test, and
returns how it went: `Outcome.healthy` only with exit status 0.

Styles: ``raw`` is plain ``os.fork()`` and ``process-plain`` a ``multiprocessing.Process``, both
with forksafe not even imported; `OURS` are the four of forksafe.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, NamedTuple

OURS = ("safe_fork", "hook", "forked", "process")
PYPY = sys.implementation.name == "pypy"


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
    once. ``fork.style`` tells the style.
    """

    def __init__(self, style: str) -> None:
        self.style = style

    def __call__(
        self, target: Callable[..., Any], *args: Any, end: str = "exit"
    ) -> Child:
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

    def _by(
        self, fork: Callable[[], int], body: Callable[[], None], read: int
    ) -> Child:
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
        import multiprocessing

        process = multiprocessing.get_context("fork").Process(target=body)
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


class Outcome(NamedTuple):
    """How a program went in its fresh interpreter."""

    returncode: int | None  # None: it hung, and was killed
    output: str

    @property
    def healthy(self) -> bool:
        return self.returncode == 0

    def __str__(self) -> str:
        return f"exit status {self.returncode}\n{self.output}"


def run(
    program: Callable[..., None],
    style: str,
    *,
    timeout: float = 40.0,
    options: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> Outcome:
    """Run `program`, a function of a test file, in a fresh interpreter under `style`.

    Args:
        program: A module-level function that takes a `Forker`.
        style: See the top of this file.
        timeout: Seconds until everything that the program started is killed.
        options: Options of the interpreter.
        env: Environment variables to add.
    """
    path = Path(program.__code__.co_filename)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", *options, __file__]
    command += [str(path), program.__name__, style]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **(env or {})},
    )
    try:
        output, _ = process.communicate(timeout=timeout)
        returncode: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        returncode = None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return Outcome(returncode, output.decode(errors="replace"))


def main() -> None:
    path, function, style = sys.argv[1:]
    sys.argv = [path]
    sys.path.insert(0, os.path.dirname(__file__))
    if style in ("hook", "process"):
        import forksafe

        forksafe.install()
    namespace: dict[str, Any] = {"__name__": "program", "__file__": path}
    exec(compile(Path(path).read_text(), path, "exec"), namespace)
    namespace[function](Forker(style))


if __name__ == "__main__":
    main()
