"""When the kernel refuses, the platform cannot, or somebody calls in an odd moment."""

from __future__ import annotations

import sys

import pytest
from programs import script

PYPY = sys.implementation.name == "pypy"

REFUSED = """
import errno, os, resource, signal, sys
import multiprocessing.util
import forksafe

style = sys.argv[1]
if style == "hook":
    forksafe.install()
calls = []
multiprocessing.util.register_after_fork(sys.modules["os"], lambda _: calls.append(1))

def fork():
    if style == "forked":
        block = forksafe.forked(check=False)
        handle = block.__enter__()
        if handle.is_child:
            os._exit(len(calls))
        block.__exit__(None, None, None)
        return handle.exitcode
    pid = os.fork() if style == "hook" else forksafe.safe_fork()
    if pid == 0:
        os._exit(len(calls))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert fork() == 1
descriptors = len(os.listdir("/dev/fd"))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
sys.stdout.write("buffered, ")
for _ in range(3):
    try:
        fork()
    except OSError as exc:
        print(errno.errorcode[exc.errno], end=" ")
    else:
        print("forked", end=" ")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR2}
    assert not calls
assert len(os.listdir("/dev/fd")) == descriptors
resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
print(fork(), signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR2})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_NPROC 0 is Linux's way to refuse")
@pytest.mark.parametrize("style", ["safe_fork", "hook", "forked"])
def test_a_fork_that_the_kernel_refuses(style: str) -> None:
    """os.fork's OSError; signal mask, stdio, descriptors and later forks are unharmed."""
    done = script(REFUSED, argv=(style,))
    assert (done.stdout, done.stderr) == ("buffered, EAGAIN EAGAIN EAGAIN 1 True\n", "")


NO_FORK = """
import os
for name in ("fork", "forkpty", "register_at_fork"):
    if hasattr(os, name):
        delattr(os, name)
import forksafe
forksafe.install()
assert not forksafe.installed()
forksafe.uninstall()
assert forksafe.last_reset() is None
for call in (forksafe.safe_fork, forksafe.forked().__enter__):
    try:
        call()
    except NotImplementedError as exc:
        print("no os.fork()" in str(exc))
"""


def test_a_platform_without_fork() -> None:
    """The import works, install() does nothing, and the rest says what is missing."""
    done = script(NO_FORK)
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")


INSTALLS = """
import os, sys, threading
from multiprocessing.util import register_after_fork

registered = []
real = os.register_at_fork
os.register_at_fork = lambda **halves: (registered.append(halves), real(**halves))
import forksafe

ours = len(registered)
barrier = threading.Barrier(16)

def install():
    barrier.wait()
    forksafe.install()

threads = [threading.Thread(target=install) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
calls = []
register_after_fork(os, lambda _: calls.append(1))

def count():
    pid = os.fork()
    if pid == 0:
        os._exit(len(calls))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

print(ours, forksafe.installed(), count(), end=" ")
forksafe.install()
print(count(), end=" ")
forksafe.uninstall()
forksafe.uninstall()
print(forksafe.installed(), count(), end=" ")
pid = forksafe.safe_fork()
if pid == 0:
    os._exit(len(calls))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), count(), end=" ")
forksafe.install()
print(count())
"""


def test_install_from_many_threads_and_uninstall() -> None:
    """The hooks are registered once; uninstall() stops it, safe_fork() is for one fork only."""
    done = script(INSTALLS)
    assert done.stdout == "2 True 1 1 False 0 1 0 1\n", done


def test_the_at_fork_hooks_are_registered_once_and_children_inherit_the_switch() -> None:
    """A child of a child has the hook, too."""
    done = script(
        """
        import forksafe, os
        from multiprocessing.util import register_after_fork
        calls = []
        register_after_fork(os, lambda _: calls.append(os.getpid()))
        forksafe.install()
        pid = os.fork()
        if pid == 0:
            assert forksafe.installed() and len(calls) == 1
            pid = os.fork()
            if pid == 0:
                os._exit(len(calls))
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert done.stdout == "2\n", done


@pytest.mark.parametrize("style", ["safe_fork", "hook", "forked"])
def test_a_fork_from_another_thread(style: str) -> None:
    """Its thread is the child's main thread; handlers and exit work there as anywhere."""
    done = script(
        """
        import forksafe, os, signal, sys, threading, time
        style = sys.argv[1]
        if style == "hook":
            forksafe.install()

        def child():
            assert threading.current_thread() is threading.main_thread()
            assert threading.active_count() == 1
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
            signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
            os.kill(os.getpid(), signal.SIGUSR1)
            assert forksafe.last_reset() is not None

        def body():
            if style == "forked":
                with forksafe.forked() as fork:
                    if fork.is_child:
                        child()
                return
            pid = os.fork() if style == "hook" else forksafe.safe_fork()
            if pid == 0:
                child()
                os._exit(0)
            print(os.waitpid(pid, 0)[1], flush=True)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        print("parent")
        """,
        argv=(style,),
    )
    expected = "handled\nparent\n" if style == "forked" else "handled\n0\nparent\n"
    assert (done.stdout, done.stderr) == (expected, "")


@pytest.mark.parametrize("style", ["safe_fork", "hook"])
def test_forks_from_many_threads_at_once(style: str) -> None:
    """Each has its own reset, and only those that asked for it."""
    done = script(
        """
        import forksafe, os, sys, threading
        style = sys.argv[1]
        if style == "hook":
            forksafe.install()
        from multiprocessing.util import register_after_fork
        calls = []
        register_after_fork(os, lambda _: calls.append(1))
        codes = {"ours": set(), "plain": set()}

        def body(kind):
            for _ in range(25):
                pid = os.fork() if kind == "plain" else forksafe.safe_fork()
                if pid == 0:
                    os._exit(len(calls))
                codes[kind].add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        threads = [threading.Thread(target=body, args=(kind,)) for kind in list(codes) * 2]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(codes["ours"], codes["plain"])
        """,
        argv=(style,),
    )
    assert done.stdout == ("{1} {1}\n" if style == "hook" else "{1} {0}\n"), done


def test_safe_fork_is_a_drop_in() -> None:
    """The same audit event and result; as os.fork it does not call itself, wrapped or not."""
    done = script(
        """
        import os, sys
        import forksafe
        events = []
        sys.addaudithook(lambda event, args: events.append(event) if event == "os.fork" else None)
        os.fork = forksafe.safe_fork
        def once():
            pid = os.fork()
            if pid == 0:
                os._exit(0 if forksafe.last_reset() else 1)
            return os.waitpid(pid, 0)[1]
        print(once(), forksafe.safe_fork.__name__)
        inner = os.fork
        os.fork = lambda: inner()  # as a library wraps what it finds
        print(once(), end=" ")
        pid = forksafe.safe_fork()
        if pid == 0:
            os._exit(0)
        print(os.waitpid(pid, 0)[1], len(events))
        """
    )
    # PyPy has no such audit event at its fork.
    assert done.stdout == f"0 safe_fork\n0 0 {0 if PYPY else 3}\n", done


def test_callbacks_that_raise_are_told_on_request() -> None:
    """They stop neither the others nor the fork, and last_reset() has what they raised."""
    done = script(
        """
        import forksafe, os, sys
        from multiprocessing.util import register_after_fork
        class Obj: pass
        objs = [Obj() for _ in range(4)]
        done = []
        def fail(exception):
            def callback(obj):
                raise exception
            return callback
        register_after_fork(objs[0], fail(ValueError("first")))
        register_after_fork(objs[1], fail(SystemExit(3)))
        register_after_fork(objs[2], fail(KeyboardInterrupt()))
        register_after_fork(objs[3], lambda _: done.append(1))
        pid = forksafe.safe_fork()
        if pid == 0:
            print(done, forksafe.last_reset()["callbacks"])
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        print(forksafe.last_reset())
        """
    )
    assert done.stdout == (
        "[1] raised: ValueError('first'); SystemExit(3); KeyboardInterrupt()\nNone\n"
    ), done
    # By sys.unraisablehook, each once.
    for exception in ("ValueError: first", "SystemExit: 3", "KeyboardInterrupt"):
        assert done.stderr.count(exception) == 1, done
    assert done.stderr.count("Exception ignored") == 3, done


def test_an_unknown_layout_is_left_alone_and_told() -> None:
    """A Python that moves private state gets the other steps, and a note of the one it misses."""
    done = script(
        """
        import forksafe, os, multiprocessing.process, multiprocessing.util as util
        calls = []
        util.register_after_fork(os, lambda _: calls.append(1))
        multiprocessing.process._children = ["not", "a", "set"]
        pid = forksafe.safe_fork()
        if pid == 0:
            told = forksafe.last_reset()
            print(told["children"], "|", told["registry"], multiprocessing.process._children, calls)
            os.sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        """
    )
    assert done.stdout == (
        "unknown layout: multiprocessing.process._children is not a set | done "
        "['not', 'a', 'set'] [1]\n"
    ), done
    assert done.stderr.count("UnknownLayout: multiprocessing.process._children") == 1, done


def test_nothing_of_a_step_runs_where_its_modules_are_not_loaded() -> None:
    """And the import of forksafe, and a fork, load none of them."""
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
