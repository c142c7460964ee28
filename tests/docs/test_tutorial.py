"""The tutorial, step by step, as it stands on the page.

A comment above each block, which no reader of the page sees, says what it is: a file to save, a
command that runs to its end, or a server, which runs until the next one is started. The port is
another one, since tests run side by side. The step that installs is run where everything is
installed anew, in ``.ci/run``; elsewhere `.venv` is the environment that runs the tests.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator, NamedTuple

import harness
import pytest
from harness import Started

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(
    r"^<!-- *(?P<note>[^\n]*?) *-->\n```\w+\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
PORT = "8000"


class Block(NamedTuple):
    """A block of the page, and the note above it."""

    note: str
    body: str


class Terminal:
    """Runs what the page says, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "server.log"
        self.started = Started()
        self.server: subprocess.Popen[bytes] | None = None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = str(listener.getsockname()[1])

    def save(self, name: str, body: str) -> None:
        (self.directory / name).write_text(body.replace(PORT, self.port), encoding="utf-8")

    def run(self, command: str) -> str:
        words = ["sh", "-ec", command.replace(PORT, self.port)]
        done = harness.command(words, cwd=self.directory, timeout=110)
        assert done.healthy, done
        return done.stdout

    def serve(self, command: str) -> None:
        """Start the server, and wait until it listens."""
        self.stop()
        command = "exec " + command.replace(PORT, self.port)
        with self.log.open("wb") as log:
            words = ["sh", "-ec", command]
            self.server = self.started.start(
                words, dict(os.environ), cwd=self.directory, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while "Booting worker" not in self.log.read_text():
            assert self.server.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)  # there is no event to wait for: another program writes the log

    def stop(self) -> None:
        """Press Ctrl-C; and leave nothing behind, whatever hangs."""
        if self.server is None:
            return
        try:
            self.server.send_signal(signal.SIGINT)
            self.server.wait(10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.started.end()
            self.server = None


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Two terminals in a directory that has what the README's first command made."""
    one = Terminal(tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    yield one
    one.stop()


def test_every_step(terminal: Terminal) -> None:
    """The application hangs, and with one option it does not."""
    pytest.importorskip("gunicorn", reason="pip install gunicorn")
    blocks = [Block(*found.groups()) for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
    printed = command = ""
    hung = False
    for note, body in blocks:
        kind, _, what = note.partition(": ")
        if kind == "file":
            terminal.save(what, body)
        elif note == "step: install":
            assert all(word in body for word in ("venv .venv", "pip install", "gunicorn"))
        elif note == "step: server":
            terminal.serve(body)
        elif note == "prints":
            assert printed == body
        elif note == "prints something like":
            counted = r"(\d+) of 40 visitors were counted\n"
            for _ in range(20):  # as the page says: ask again where nothing collided
                seen, told = re.fullmatch(counted, printed), re.fullmatch(counted, body)
                assert seen and told, (printed, body)
                hung = int(seen[1]) < 40
                if hung:
                    break
                printed = terminal.run(command)
            assert hung, "nothing hung"
            _until_in(terminal.log, "WORKER TIMEOUT")
        else:
            assert note in ("step: client", "step: audit"), note
            command = body
            printed = terminal.run(command)
    assert hung
    assert len(blocks) > 10


def test_the_install_step(tmp_path: Path) -> None:
    """It makes an environment that has both, out of a checkout."""
    if not os.environ.get("FORKSAFE_NO_SKIP"):
        pytest.skip("it installs from the package index: done in .ci/run, with FORKSAFE_NO_SKIP=1")
    text = PAGE.read_text(encoding="utf-8")
    (install,) = [found["body"] for found in BLOCK.finditer(text) if "install" in found["note"]]
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).symlink_to(ROOT / name)
    subprocess.run(["sh", "-ec", install], cwd=tmp_path, check=True, timeout=110)
    for command in ("gunicorn", "forksafe"):
        subprocess.run(
            [tmp_path / ".venv/bin" / command, "--help"], check=True, stdout=subprocess.DEVNULL
        )


def _until_in(log: Path, words: str) -> None:
    deadline = time.monotonic() + 20
    while words not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
