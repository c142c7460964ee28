"""Row 9: a child of a process that runs a forkserver starts one of its own, on demand."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import PYPY, Forker, run, run_plain


def ends_with(context: Any, code: int) -> bool:
    """Tell whether a Process of `context` runs, and ends with `code` as it should."""
    process = context.Process(target=sys.exit, args=(code,))
    process.start()
    process.join(20)
    return bool(process.exitcode == code)


def program(fork: Forker) -> None:
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    assert ends_with(context, 3)
    assert fork.run(ends_with, context, 4) is True
    assert ends_with(context, 5)  # and the parent's goes on working


def test_child_starts_its_own(style: str) -> None:
    """A forkserver Process works in the child, and after that in the parent."""
    outcome = run(program, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_breaks_without(style: str) -> None:
    """The child waits for a pid that is not its child's."""
    outcome = run(program, style)
    assert outcome.shows("ChildProcessError"), outcome


def all_closed(fork: Forker) -> None:
    """A daemon has closed all descriptors, that of the forkserver among them."""
    import multiprocessing.forkserver

    context = multiprocessing.get_context("forkserver")
    assert ends_with(context, 3)
    server: Any = multiprocessing.forkserver._forkserver
    os.close(server._forkserver_alive_fd)
    server._forkserver_alive_fd = 500  # no other file gets this number meanwhile
    assert fork.run(ends_with, context, 4) is True
    server._forkserver_alive_fd = None


def test_whose_descriptor_is_closed(style: str) -> None:
    """The child starts its own all the same."""
    outcome = run(all_closed, style)
    assert outcome.healthy, outcome


def stopping(fork: Forker) -> None:
    import multiprocessing.forkserver

    server: Any = multiprocessing.forkserver._forkserver
    server.ensure_running()
    asked, answer = os.pipe()
    child = fork(lambda: os.read(asked, 1).decode())
    server._stop()  # closes the alive pipe, and waits for the server's end
    assert server._forkserver_pid is None
    os.write(answer, b"x")
    assert child.result() == "x"  # the child lived all the while
    assert child.join() == 0


def test_parents_server_does_not_wait_for_the_child(style: str) -> None:
    """The parent's server ends when the parent lets go of it, while a child lives on."""
    outcome = run(stopping, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("style", ["raw", "process-plain"])
def test_parents_server_waits_without(style: str) -> None:
    """The child's copy of the alive pipe keeps the parent's server running."""
    outcome = run_plain(stopping, style)
    assert outcome.shows("hung"), outcome


def held_lock(fork: Forker) -> None:
    import multiprocessing.forkserver
    import threading

    context = multiprocessing.get_context("forkserver")
    taken, release = threading.Event(), threading.Event()

    def start_slowly() -> None:
        with multiprocessing.forkserver._forkserver._lock:  # type: ignore[attr-defined]
            taken.set()
            release.wait()

    thread = threading.Thread(target=start_slowly)
    thread.start()
    taken.wait()
    try:
        assert fork.run(ends_with, context, 4) is True
    finally:
        release.set()
        thread.join()
    assert ends_with(context, 5)


def test_lock_held_by_a_vanished_thread(style: str) -> None:
    """A thread of the parent that was starting a server does not hang the child."""
    outcome = run(held_lock, style)
    assert outcome.healthy, outcome


def test_held_lock_hangs_without() -> None:
    """The child waits for ever for the lock of a thread it does not have."""
    outcome = run_plain(held_lock, "raw")
    assert outcome.shows("hung"), outcome


def in_server_child(style: str, code: int) -> None:
    """Run in a child of a forkserver: start one of its own, then fork a child that does, too."""
    import multiprocessing

    import forksafe

    if style in ("hook", "process"):
        forksafe.install()
    context = multiprocessing.get_context("forkserver")
    assert ends_with(context, 6)
    assert Forker(style).run(ends_with, context, 7) is True
    assert ends_with(context, 8)
    sys.exit(code)


def forks_in_server_children(fork: Forker) -> None:
    import multiprocessing

    import test_09_forkserver as importable

    context = multiprocessing.get_context("forkserver")
    for _ in range(2):
        process = context.Process(target=importable.in_server_child, args=(fork.style, 9))
        process.start()
        process.join(60)
        assert process.exitcode == 9


def everywhere(tmp_path: Path) -> dict[str, str]:
    """Return the environment in which every interpreter installs the hook as it starts."""
    (tmp_path / "sitecustomize.py").write_text("import forksafe\nforksafe.install()\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), *_pythonpath()])}


def _pythonpath() -> list[str]:
    path = os.environ.get("PYTHONPATH")
    return [path] if path else []


def test_with_the_hook_in_the_server_itself(tmp_path: Path) -> None:
    """The server, its children, their servers and their forks all keep what is theirs."""
    outcome = run(forks_in_server_children, "hook", env=everywhere(tmp_path), timeout=90)
    assert outcome.healthy, outcome


def test_children_of_servers(style: str) -> None:
    """A child of a forkserver is a parent like any other."""
    outcome = run(forks_in_server_children, style, timeout=90)
    assert outcome.healthy, outcome


def outliving(fork: Forker) -> None:
    import multiprocessing.forkserver

    done_read, done_write = os.pipe()
    ended_read, ended_write = os.pipe()

    def live_on() -> None:
        os.close(ended_write)
        os.read(ended_read, 1)  # at its end when the parent has ended
        context = multiprocessing.get_context("forkserver")
        os.write(done_write, b"y" if ends_with(context, 4) else b"n")

    pid = os.fork()
    if pid == 0:  # the parent of this test, which ends before its child
        os.setsid()
        multiprocessing.forkserver.ensure_running()
        fork(live_on)
        sys.exit(0)
    os.close(done_write)
    os.close(ended_write)
    os.waitpid(pid, 0)
    assert os.read(done_read, 1) == b"y", "the child's server does not answer"


@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_child_outlives_the_parent(style: str) -> None:
    """The socket of the child's server is not in the directory that the parent's exit deletes."""
    outcome = run(outliving, style)
    assert outcome.healthy, outcome


def test_outliving_child_breaks_without() -> None:
    """The child's sockets have no directory."""
    outcome = run_plain(outliving, "raw")
    assert outcome.shows("the child's server does not answer", "hung"), outcome


def family(fork: Forker) -> None:
    import importlib

    name = os.environ["FAMILY"]
    package = importlib.import_module(name)
    server = importlib.import_module(f"{name}.forkserver")._forkserver
    context = package.get_context("forkserver")
    assert ends_with(context, 3)
    ours = server._forkserver_address

    def child() -> tuple[bool, bool]:
        return ends_with(context, 4), server._forkserver_address != ours

    assert fork.run(child) == (True, True)
    assert ends_with(context, 5)


@pytest.mark.parametrize("name", ["multiprocess", "billiard"])
@pytest.mark.skipif(PYPY, reason="neither package's forkserver is tested on PyPy by its authors")
def test_families(name: str, style: str) -> None:
    """The forkservers of multiprocess and billiard, where they are loaded."""
    pytest.importorskip(name)
    outcome = run(family, style, env={"FAMILY": name})
    assert outcome.healthy, outcome
