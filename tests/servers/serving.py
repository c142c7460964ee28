"""Start a real server, use it, and leave nothing of it behind.

A `Site` is a directory of its own: a server's temporary files, its log and its configuration are
in it, and every process that came of it is known, wherever it has gone. At the end of a test
nothing of it may be left.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from harness import Running, Started, process_ids, process_table

APPS = Path(__file__).with_name("apps")
SRC = Path(__file__).parents[2] / "src"


def need(module: str, requirement: str) -> None:
    """Skip this test file unless `module` can be imported."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}: pip install {requirement}", allow_module_level=True)


def wait_until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Wait for something that only another process knows of, and that tells nobody."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


def process(pid: int) -> Running | None:
    """Look `pid` up in the process table."""
    return process_table([pid]).get(pid)


def alive(pid: int) -> bool:
    """Tell whether there is such a process, and it is no zombie."""
    found = process(pid)
    return found is not None and found.state not in "ZX"


def children(pid: int) -> list[Running]:
    """Return the children of process `pid`, zombies too."""
    return [found for found in process_table(process_ids()).values() if found.parent == pid]


def descriptors(pid: int) -> int:
    """Count the open file descriptors of `pid`."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Answer(NamedTuple):
    """What became of one request."""

    status: int  # 0: no answer
    body: str  # the error, where there was no answer


def get(port: int, path: str, timeout: float = 10.0) -> Answer:
    """Request `path` over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    except (OSError, http.client.HTTPException) as exc:
        return Answer(0, repr(exc))
    finally:
        connection.close()


class Load:
    """Clients that ask at once, each in a thread of its own, a bounded number of times."""

    def __init__(
        self,
        port: int,
        path: str,
        *,
        clients: int = 8,
        each: int = 25,
        timeout: float = 10.0,
        give_up: bool = False,
    ) -> None:
        self.answers: list[Answer] = []
        self._enough = threading.Event()
        self._lock = threading.Lock()
        self._answered = threading.Condition(self._lock)

        def ask(client: int) -> None:
            for number in range(each):
                if self._enough.is_set():
                    return
                url = path.replace("TOKEN", f"{client}.{number}")
                answer = get(port, url, timeout)
                with self._lock:
                    self.answers.append(answer)
                    self._answered.notify_all()
                if give_up and answer.status != 200:
                    return

        self._threads = [
            threading.Thread(target=ask, args=(client,), daemon=True) for client in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for(self, more: int, timeout: float = 30.0) -> None:
        """Wait until `more` further requests were answered."""
        with self._lock:
            goal = len(self.answers) + more
            came = self._answered.wait_for(lambda: len(self.answers) >= goal, timeout)
        assert came, f"{len(self.answers)} answers, {goal} expected within {timeout} s"

    def finish(self) -> list[Answer]:
        """Let the clients come to their end, and return all answers."""
        for thread in self._threads:
            thread.join()
        return self.answers

    def stop(self) -> list[Answer]:
        """Let no client ask again, and return all answers."""
        self._enough.set()
        return self.finish()


def failures(answers: list[Answer]) -> list[Answer]:
    """Return the answers that are not 200."""
    return [answer for answer in answers if answer.status != 200]


def too_late(answers: list[Answer]) -> list[Answer]:
    """Return those that did not come in time."""
    return [answer for answer in answers if answer.status == 0 and "timed out" in answer.body]


class Server:
    """One started program."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self._log = log
        self.pid = popen.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout} s:\n{self.log}") from None

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Send it a signal, wait for its end and return the exit code."""
        self.send(number)
        return self.wait(timeout)

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def wait_listening(self, port: int, timeout: float = 30.0) -> None:
        """Wait until it accepts connections."""

        def connects() -> bool:
            assert self._popen.poll() is None, f"ended with {self._popen.returncode}:\n{self.log}"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                return False
            return True

        wait_until(connects, f"port {port} open:\n{self.log}", timeout)

    def wait_log(self, text: str, times: int = 1, timeout: float = 30.0) -> None:
        """Wait until it has written `text`."""

        def written() -> bool:
            ended = self._popen.poll() is not None
            found = self.log.count(text) >= times
            assert found or not ended, f"ended with {self._popen.returncode}:\n{self.log}"
            return found

        try:
            wait_until(written, "")
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {text!r} in:\n{self.log}") from None


class Site:
    """A directory, and all processes that were started in it."""

    def __init__(self) -> None:
        # Short: the sockets of managers lie in it, and their paths may have 107 bytes.
        self.path = Path(tempfile.mkdtemp(prefix="fs-"))
        self.tmp = self.path / "t"
        self.tmp.mkdir()
        self._started = Started()
        self._logs = 0

    def start(self, *command: str, forksafe: bool = False, **env: str) -> Server:
        """Start a program in a session of its own.

        Args:
            command: ``PYTHON`` in the first place is this interpreter; any other name is one of
                its scripts, or a program.
            forksafe: For applications that have the line themselves: whether they take it.
            env: Environment variables to add.
        """
        first = command[0]
        script = Path(os.path.dirname(sys.executable), first)
        program = [sys.executable] if first == "PYTHON" else [str(script)]
        if first != "PYTHON" and not script.exists():
            program = [first]
        self._logs += 1
        log = self.path / f"log-{self._logs}"
        with log.open("wb") as out:
            popen = self._started.start(
                [*program, *command[1:]],
                self.environment(forksafe, **env),
                cwd=APPS,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return Server(popen, log)

    def environment(self, forksafe: bool = False, **env: str) -> dict[str, str]:
        """Return the environment of what runs in this site."""
        ours = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SRC), str(APPS)]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
            "TMPDIR": str(self.tmp),
            "HOME": str(self.path),  # Gunicorn puts its control socket there
            "SITE": str(self.path),
        }
        ours.pop("WITH_FORKSAFE", None)
        if forksafe:
            ours["WITH_FORKSAFE"] = "1"
        return {**ours, **env}

    def processes(self) -> list[Running]:
        """Return what runs of this site, wherever it has gone."""
        return self._started.alive()

    def expect_ended(self) -> None:
        """Assert that every process has ended."""
        wait_until(lambda: not self.processes(), "the end of every process")

    def expect_clean(self) -> None:
        """Assert that everything has ended, and has taken its temporary files with it."""
        self.expect_ended()
        left = sorted(str(path.relative_to(self.tmp)) for path in self.tmp.rglob("*"))
        assert left == []

    def close(self) -> None:
        """Kill what is left, and delete the directory."""
        self._started.end()
        shutil.rmtree(self.path)


class Redis:
    """A Redis server that keeps nothing on disk."""

    def __init__(self, site: Site) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("needs redis-server: apt-get install redis-server")
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self.server = site.start(
            *(program, "--port", str(port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(site.path)),
        )
        self.server.wait_listening(port)
