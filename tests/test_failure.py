"""When the kernel refuses, the platform cannot, or somebody calls in an odd moment."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable

import pytest
from harness import PYPY, Forker, run, script


def wait(pid: int) -> int:
    """Return the exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Owner:
    """Something of the program's that has a callback."""


def counted() -> tuple[Owner, list[int]]:
    """Register a callback; return what holds it, and a list that grows with each of its calls."""
    from multiprocessing.util import register_after_fork

    owner, calls = Owner(), []
    register_after_fork(owner, lambda _: calls.append(1))
    return owner, calls


def refused(fork: Forker) -> None:
    import errno
    import resource
    import signal

    import forksafe

    _owner, calls = counted()

    def calls_in_child() -> int:
        if fork.style == "forked":
            with forksafe.forked(check=False) as child:
                if child.is_child:
                    os._exit(len(calls))
            assert child.exitcode is not None
            return child.exitcode
        pid = fork.os_fork()
        if pid == 0:
            os._exit(len(calls))
        return wait(pid)

    def blocked() -> set[int]:
        return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}

    assert calls_in_child() == 1
    descriptors = len(os.listdir("/dev/fd"))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
    sys.stdout.write("buffered, ")
    for _ in range(3):
        try:
            calls_in_child()
        except OSError as exc:
            print(errno.errorcode[exc.errno or 0], end=" ")
        else:
            print("forked", end=" ")
        assert blocked() == {signal.SIGUSR2}
        assert not calls
    assert len(os.listdir("/dev/fd")) == descriptors
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    print(calls_in_child(), blocked() == {signal.SIGUSR2})


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_NPROC 0 is Linux's way to refuse")
@pytest.mark.parametrize("style", ["safe_fork", "hook", "forked"])
def test_a_fork_that_the_kernel_refuses(style: str) -> None:
    """os.fork's OSError; signal mask, stdio, descriptors and later forks are unharmed."""
    done = run(refused, style)
    assert (done.stdout, done.stderr) == ("buffered, EAGAIN EAGAIN EAGAIN 1 True\n", "")


def without_fork() -> list[bool]:
    for name in ("fork", "forkpty", "register_at_fork"):
        if hasattr(os, name):
            delattr(os, name)
    import forksafe

    forksafe.install()
    assert not forksafe.installed()
    forksafe.uninstall()
    assert forksafe.last_reset() is None
    told = []
    for call in (forksafe.safe_fork, forksafe.forked().__enter__):
        try:
            call()
        except NotImplementedError as exc:
            told.append("no os.fork()" in str(exc))
    return told


def test_a_platform_without_fork() -> None:
    """The import works, install() does nothing, and the rest says what is missing."""
    done = run(without_fork, "")
    assert (done.value, done.stderr) == ([True, True], "")


def install_and_uninstall() -> dict[str, Any]:
    import threading

    registered = []
    real = os.register_at_fork

    def register_at_fork(**halves: Any) -> None:
        registered.append(halves)
        real(**halves)

    os.register_at_fork = register_at_fork
    import forksafe

    ours = len(registered)
    barrier = threading.Barrier(16)

    def install() -> None:
        barrier.wait()
        forksafe.install()

    threads = [threading.Thread(target=install) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _owner, calls = counted()

    def count(fork: Callable[[], int] = os.fork) -> int:
        pid = fork()
        if pid == 0:
            os._exit(len(calls))
        return wait(pid)

    told: dict[str, Any] = {"installed": (forksafe.installed(), count())}
    forksafe.install()
    told["installed again"] = count()
    forksafe.uninstall()
    forksafe.uninstall()
    told["uninstalled"] = (forksafe.installed(), count())
    told["safe_fork"] = (count(forksafe.safe_fork), count())
    forksafe.install()
    told["installed anew"] = count()
    told["registered meanwhile"] = len(registered) - ours
    return told


def test_install_from_many_threads_and_uninstall() -> None:
    """No hook is registered by them; uninstall() stops it, safe_fork() is for one fork only."""
    assert run(install_and_uninstall, "").value == {
        "installed": [True, 1],
        "installed again": 1,
        "uninstalled": [False, 0],
        "safe_fork": [1, 0],
        "installed anew": 1,
        "registered meanwhile": 0,
    }


def child_of_a_child(fork: Forker) -> None:
    import forksafe

    _owner, calls = counted()

    def child() -> int:
        assert forksafe.installed() and len(calls) == 1
        return int(fork.run(calls.__len__, end="_exit"))

    assert fork.run(child) == 2


def test_children_inherit_the_switch() -> None:
    """A child of a child has the hook, too."""
    outcome = run(child_of_a_child, "hook")
    assert outcome.healthy, outcome


def another_thread(fork: Forker) -> None:
    import signal
    import threading

    import forksafe

    def child() -> None:
        assert threading.current_thread() is threading.main_thread()
        assert threading.active_count() == 1
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
        signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert forksafe.last_reset() is not None

    def body() -> None:
        if fork.style == "forked":
            with forksafe.forked() as handle:
                if handle.is_child:
                    child()
            return
        pid = fork.os_fork()
        if pid == 0:
            child()
            os._exit(0)
        assert wait(pid) == 0

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    print("parent")


@pytest.mark.parametrize("style", ["safe_fork", "hook", "forked"])
def test_a_fork_from_another_thread(style: str) -> None:
    """Its thread is the child's main thread; handlers and exit work there as anywhere."""
    done = run(another_thread, style)
    assert (done.stdout, done.stderr) == ("handled\nparent\n", "")


def many_threads(fork: Forker) -> None:
    import threading

    import forksafe

    _owner, calls = counted()
    codes: dict[str, set[int]] = {"ours": set(), "plain": set()}

    def body(kind: str) -> None:
        for _ in range(25):
            pid = os.fork() if kind == "plain" else forksafe.safe_fork()
            if pid == 0:
                os._exit(len(calls))
            codes[kind].add(wait(pid))

    threads = [threading.Thread(target=body, args=(kind,)) for kind in list(codes) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {"ours": {1}, "plain": {1 if fork.style == "hook" else 0}}, codes


@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_forks_from_many_threads_at_once(style: str) -> None:
    """Each has its own reset, and only those that asked for it."""
    outcome = run(many_threads, style)
    assert outcome.healthy, outcome


def drop_in(fork: Forker) -> None:
    import forksafe

    events = []
    sys.addaudithook(lambda event, args: events.append(event) if event == "os.fork" else None)
    assert os.fork is forksafe.safe_fork

    def once() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if forksafe.last_reset() else 1)
        return wait(pid)

    assert once() == 0
    assert forksafe.safe_fork.__name__ == "safe_fork"
    inner = os.fork
    os.fork = lambda: inner()  # as a library wraps what it finds
    assert once() == 0
    pid = forksafe.safe_fork()
    if pid == 0:
        os._exit(0)
    assert wait(pid) == 0
    assert len(events) == (0 if PYPY else 3)  # PyPy has no such audit event at its fork


def test_safe_fork_is_a_drop_in() -> None:
    """The same audit event and result; as os.fork it does not call itself, wrapped or not."""
    outcome = run(drop_in, "replace")
    assert outcome.healthy, outcome


def unknown_layout(fork: Forker) -> None:
    import multiprocessing.process

    import forksafe

    _owner, calls = counted()
    multiprocessing.process._children = [  # type: ignore[attr-defined] # private
        "not",
        "a",
        "set",
    ]

    def child() -> tuple[str, str, object, int]:
        told = forksafe.last_reset() or {}
        children = multiprocessing.process._children  # type: ignore[attr-defined] # private
        sys.stderr.flush()  # PyPy's has a buffer
        return told["children"], told["registry"], children, len(calls)

    assert fork.run(child, end="_exit") == (
        "unknown layout: multiprocessing.process._children is not a set",
        "done",
        ["not", "a", "set"],
        1,
    )


def test_an_unknown_layout_is_left_alone_and_told() -> None:
    """A Python that moves private state gets the other steps, and a note of the one it misses."""
    outcome = run(unknown_layout, "safe_fork")
    assert outcome.healthy, outcome
    # By sys.unraisablehook, once.
    assert outcome.output.count("UnknownLayout: multiprocessing.process._children") == 1, outcome


def odd_state(fork: Forker) -> None:
    import tempfile
    import weakref

    import forksafe

    class Odd:
        @property
        def func(self) -> object:
            raise LookupError("of a test")

    assert tempfile.tempdir is None or tempfile.tempdir
    registry: Any = weakref.finalize._registry  # type: ignore[attr-defined] # private
    registry[Odd()] = Odd()
    _owner, calls = counted()

    def child() -> tuple[str, str, int]:
        told = forksafe.last_reset() or {}
        sys.stderr.flush()  # PyPy's has a buffer
        return told["temporary directories"], told["registry"], len(calls)

    assert fork.run(child, end="_exit") == ("failed: LookupError('of a test')", "done", 1)
    os._exit(0)


def test_whatever_a_step_raises_is_told(style: str) -> None:
    """Once, by the child; the other steps run, and nothing comes out of the parent's half."""
    outcome = run(odd_state, style)
    assert outcome.healthy, outcome
    assert outcome.output.count("LookupError: of a test") == 1, outcome


def test_nothing_of_a_step_runs_where_its_modules_are_not_loaded() -> None:
    """And the import of forksafe, and a fork, load none of them."""
    # As text: it needs an interpreter in which nothing is loaded, not even what the harness loads.
    done = script(
        f"""
        import os, sys
        sys.path[:0] = {[p for p in sys.path if p]!r}
        before = set(sys.modules)
        import forksafe
        pid = forksafe.safe_fork()
        if pid == 0:
            told = forksafe.last_reset()
            assert told["registry"] == told["children"] == "not loaded", told
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        heavy = set(
            "multiprocessing asyncio concurrent socket ssl logging tempfile subprocess dataclasses "
            "inspect selectors typing typing_extensions".split()
        )
        print(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} & heavy))
        """,
        "-I",
        "-S",
    )
    assert done.stdout == "[]\n", done
