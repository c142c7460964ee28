"""`forked()` and `Fork`: the child never leaves its block, the parent leaves nobody behind."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from typing import Any, Callable

import pytest
from harness import PYPY, Outcome, run, script

import forksafe
from forksafe.exceptions import ChildFailedError


def no_pidfds(pid: int, flags: int = 0) -> int:
    """Answer as a kernel without pidfds does."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture(params=["pidfd", "pipe"] if hasattr(os, "pidfd_open") else ["pipe"], autouse=True)
def status(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both sources of the exit status: pidfds where the kernel has them, and the pipe."""
    if request.param == "pipe":
        monkeypatch.setattr(os, "pidfd_open", no_pidfds, raising=False)
    return str(request.param)


def ran(program: Callable[..., None], status: str, *args: str, **limits: Any) -> Outcome:
    """Run a program of this file in a fresh interpreter, with that source of the exit status."""
    return run(with_status, "", status, program.__name__, *args, **limits)


def with_status(status: str, program: str, *args: str) -> None:
    if status == "pipe":  # as on systems other than Linux, which have no such function
        vars(os).pop("pidfd_open", None)
    globals()[program](*args)


def reaped(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def pipe_report() -> tuple[Callable[[object], None], Callable[[], str]]:
    """Return a function for the child, which tells, and one for the parent, which is told."""
    read, write = os.pipe()

    def tell(value: object) -> None:
        os.write(write, f"{value}\n".encode())

    def told() -> str:
        os.close(write)
        with os.fdopen(read) as file:
            return file.read()

    return tell, told


# --- the child's end ------------------------------------------------------------------------


def test_only_the_parent_comes_out_of_the_block() -> None:
    """The child's block ends the child, with exit code 0."""
    pid = os.getpid()
    with forksafe.forked() as fork:
        assert fork.is_child is (os.getpid() != pid)
        assert fork.is_parent is not fork.is_child
    assert os.getpid() == pid
    assert fork.exitcode == 0
    assert reaped(fork.pid)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, 0), (0, 0), (3, 3), (-1, 255), (256, 0), (True, 1), ("a message", 1), (2**70, 255)],
)
def test_system_exit_is_as_the_interpreter_has_it(code: Any, expected: int) -> None:
    """The same exit code as ``python -c 'raise SystemExit(code)'``."""
    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            raise SystemExit(code)
    assert fork.exitcode == expected
    plain = script(f"raise SystemExit({code!r})")
    if not (PYPY and code == 2**70):  # PyPy prints an OverflowError of its own
        assert plain.returncode == expected


def exits_with_a_message() -> None:
    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            sys.exit("good bye")
    sys.exit(fork.exitcode)


def test_system_exit_message_goes_to_stderr(status: str) -> None:
    """As the interpreter prints it, without a traceback."""
    done = ran(exits_with_a_message, status)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "good bye\n")


def is_interrupted() -> None:
    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            raise KeyboardInterrupt
    sys.exit(fork.exitcode)


def test_keyboard_interrupt_is_130_without_a_traceback(status: str) -> None:
    """As a shell counts it."""
    done = ran(is_interrupted, status)
    assert (done.returncode, done.stderr) == (130, "")


def raises_amid_handlers() -> None:
    try:
        with forksafe.forked() as fork:
            if fork.is_child:
                raise LookupError("only in the child")
    except ChildFailedError as exc:
        print("parent:", exc.exitcode, exc.pid == fork.pid)
    except LookupError:
        print("the child came out")
    finally:
        print("finally")
    print("the rest")


def test_an_exception_ends_the_child_and_not_the_program_around_it(status: str) -> None:
    """Traceback on stderr once, exit code 1; the parent's except and finally run once."""
    done = ran(raises_amid_handlers, status)
    assert done.stdout == "parent: 1 True\nfinally\nthe rest\n"
    assert done.stderr.count("LookupError: only in the child") == 1
    assert "Traceback" in done.stderr


def test_every_door_ends_the_child() -> None:
    """``return``, ``break`` and ``continue`` leave the block in the parent alone."""
    parent = os.getpid()
    forks = []

    def by_return() -> str:
        with forksafe.forked() as fork:
            forks.append(fork)
            return "returned"

    assert by_return() == "returned"
    for _ in range(2):
        with forksafe.forked() as fork:
            forks.append(fork)
            continue
    while True:
        with forksafe.forked() as fork:
            forks.append(fork)
            break
    assert os.getpid() == parent
    assert [fork.exitcode for fork in forks] == [0, 0, 0, 0]


def handler_raises_after_the_fork() -> None:
    from multiprocessing.util import register_after_fork

    class Stop(Exception):
        pass

    def stop(signum: int, frame: object) -> None:
        raise Stop

    signal.signal(signal.SIGUSR1, stop)
    register_after_fork(stop, lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            print("the block ran in the child")
    print("parent:", fork.exitcode)


@pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="a known fault: on PyPy the child runs the block"
)
def test_a_handler_that_raises_right_after_the_fork_does_not_free_the_child(status: str) -> None:
    """A signal that waits while the child is made raises before its block, and ends it."""
    done = ran(handler_raises_after_the_fork, status)
    assert done.stdout == "parent: 1\n", done.stderr
    assert "Stop" in done.stderr


def starts_much() -> None:
    import atexit
    import multiprocessing.util
    import tempfile
    import weakref

    class Obj:
        pass

    parent = os.getpid()
    atexit.register(lambda: print("inherited", os.getpid() == parent))
    # Of what lives to the end.
    weakref.finalize(os, lambda: print("inherited finalizer", os.getpid() == parent))
    with forksafe.forked() as fork:
        if fork.is_child:
            event = threading.Event()
            threading.Thread(target=lambda: (event.wait(), print("thread"))).start()
            atexit.register(print, "exit handler")
            multiprocessing.util.Finalize(None, print, ("finalizer",), exitpriority=1)
            kept = Obj(), tempfile.TemporaryDirectory()
            weakref.finalize(kept[0], print, "own weakref finalizer")
            print(kept[1].name)
            sys.stdout.write("no newline, ")
            event.set()
    print("parent")


def test_what_the_child_started_is_finished(status: str) -> None:
    """Its threads are joined, its exit handlers and finalizers run, its streams are flushed."""
    done = ran(starts_much, status)
    lines = done.stdout.splitlines()
    path, rest = lines[0], lines[1:]
    assert sorted(rest[:-3]) == sorted(
        ["no newline, thread", "exit handler", "finalizer", "own weakref finalizer"]
    ), done
    assert rest[-3:] == ["parent", "inherited finalizer True", "inherited True"]
    assert not os.path.exists(path)
    assert "Error" not in done.stderr


def exit_handler_fails() -> None:
    import atexit

    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            atexit.register(print, "the other one")
            atexit.register(lambda: 1 / 0)
    print(fork.exitcode)


def test_a_failing_exit_handler_does_not_keep_the_child(status: str) -> None:
    """It is reported, the others run, and the child ends."""
    done = ran(exit_handler_fails, status)
    assert done.stdout == "the other one\n0\n"
    assert "ZeroDivisionError" in done.stderr


def cannot_flush() -> None:
    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
            sys.stdout.write("lost")
    os.write(1, str(fork.exitcode).encode())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_flushed_is_exit_code_120(status: str) -> None:
    """As the interpreter's own exit has it."""
    done = ran(cannot_flush, status)
    assert done.stdout == "120"


# --- the parent's end -----------------------------------------------------------------------


def test_a_failed_child_raises_unless_unchecked() -> None:
    """ChildFailedError names the child and its exit code."""
    with pytest.raises(ChildFailedError, match=r"worker-7 \(pid \d+\) ended with exit code 7") as e:
        with forksafe.forked(name="worker-7") as fork:
            if fork.is_child:
                os._exit(7)
    assert (e.value.pid, e.value.exitcode) == (fork.pid, 7)
    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            os._exit(7)
    assert fork.exitcode == 7


def test_a_signal_is_a_negative_exit_code() -> None:
    """And the message says so."""
    with pytest.raises(ChildFailedError, match="ended by signal 9"):
        with forksafe.forked() as fork:
            if fork.is_child:
                signal.pause()
            fork.kill()
    assert fork.exitcode == -signal.SIGKILL


def test_an_exception_in_the_parent_stops_the_child_politely() -> None:
    """SIGTERM, reaped, and the exception goes on."""
    read, write = os.pipe()
    with pytest.raises(LookupError, match="mine"):
        with forksafe.forked() as fork:
            if fork.is_child:
                signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
                os.write(write, b".")
                while True:
                    time.sleep(0.05)  # not pause(): a signal may come right before it
            os.read(read, 1)
            assert fork.is_alive()
            raise LookupError("mine")
    os.close(read)
    os.close(write)
    assert fork.exitcode == 9
    assert reaped(fork.pid)


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    """No orphan: SIGKILL."""
    read, write = os.pipe()
    with pytest.raises(LookupError):
        with forksafe.forked(grace=0.2) as fork:
            if fork.is_child:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.write(write, b".")
                while True:
                    time.sleep(0.05)
            os.read(read, 1)
            raise LookupError
    os.close(read)
    os.close(write)
    assert fork.exitcode == -signal.SIGKILL
    assert reaped(fork.pid)


def interrupted_as_it_waits() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with forksafe.forked() as fork:
            if fork.is_child:
                while True:
                    signal.pause()
            parent = threading.main_thread().ident
            threading.Timer(0.3, signal.pthread_kill, (parent, signal.SIGINT)).start()
    except KeyboardInterrupt:
        print("interrupted", fork.exitcode)
    try:
        os.waitpid(fork.pid, 0)
    except ChildProcessError:
        print("reaped")


def test_ctrl_c_while_waiting_stops_the_child(status: str) -> None:
    """KeyboardInterrupt at the end of the block: the child is terminated and reaped first."""
    done = ran(interrupted_as_it_waits, status)
    assert done.stdout == f"interrupted {-signal.SIGTERM}\nreaped\n", done


def test_wait_with_a_timeout() -> None:
    """TimeoutError leaves the child alone; afterwards the same exit code is told again."""
    read, write = os.pipe()
    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            os.close(write)
            os.read(read, 1)
            os._exit(5)
        with pytest.raises(TimeoutError, match="still runs after 0.05 s"):
            fork.wait(0.05)
        assert fork.exitcode is None
        assert fork.is_alive()
        os.write(write, b".")
        assert fork.wait(float("inf")) == 5
        assert fork.wait() == 5
        assert not fork.is_alive()
        assert fork.exitcode == 5
        fork.terminate()  # has no effect, and hits nobody
    os.close(read)
    os.close(write)
    assert fork.exitcode == 5


def test_sentinel_turns_readable_when_the_child_ends() -> None:
    """For select() and event loops; closed with the block."""
    read, write = os.pipe()
    with forksafe.forked() as fork:
        if fork.is_child:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        assert select.select([fork.sentinel], [], [], 0)[0] == []
        os.close(write)
        assert select.select([fork.sentinel], [], [], 20)[0] == [fork.sentinel]
    os.close(read)
    with pytest.raises(ValueError, match="closed"):
        _ = fork.sentinel


def test_send_signal() -> None:
    """Any signal."""
    tell, told = pipe_report()
    read, write = os.pipe()
    with forksafe.forked() as fork:
        if fork.is_child:
            signal.signal(signal.SIGUSR2, lambda *_: (tell("usr2"), os._exit(0)))
            os.write(write, b".")
            while True:
                time.sleep(0.05)
        os.read(read, 1)
        fork.send_signal(signal.SIGUSR2)
    os.close(read)
    os.close(write)
    assert told() == "usr2\n"


def test_parent_only_methods_raise_elsewhere() -> None:
    """In the child, and in another child of the parent, they are a RuntimeError."""
    tell, told = pipe_report()
    with forksafe.forked() as fork:
        if fork.is_child:
            for call in (fork.wait, fork.terminate, fork.kill, fork.is_alive):
                try:
                    call()
                except RuntimeError:
                    tell("RuntimeError")
            for attribute in ("exitcode", "sentinel"):
                try:
                    getattr(fork, attribute)
                except RuntimeError:
                    tell("RuntimeError")
            assert fork.pid == 0
        else:
            with forksafe.forked() as other:
                if other.is_child:
                    try:
                        fork.kill()
                    except RuntimeError as exc:
                        tell(f"RuntimeError {os.getpid()}" if str(os.getpid()) in str(exc) else exc)
    assert [line.split()[0] for line in told().splitlines()] == ["RuntimeError"] * 7


def reaped_by_others(how: str) -> None:
    if how == "ignored":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with forksafe.forked() as fork:
            if fork.is_child:
                os._exit(3)
            if how == "waitpid":
                os.waitpid(-1, 0)
    except ChildProcessError as exc:
        print("reaped it" in str(exc), fork.is_alive(), repr(fork).endswith("other code>"))
    try:
        _ = fork.exitcode
    except ChildProcessError:
        print("still")


@pytest.mark.parametrize("how", ["waitpid", "ignored"])
def test_a_child_that_others_reaped_is_said_to_be(status: str, how: str) -> None:
    """ChildProcessError, never an invented 0."""
    done = ran(reaped_by_others, status, how)
    assert done.stdout == "True False True\nstill\n", done


def handler_asks() -> None:
    asked = []
    signal.signal(signal.SIGCHLD, lambda *_: asked.append((fork.is_alive(), fork.exitcode)))
    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            time.sleep(0.3)  # until the parent waits, which nothing tells
            os._exit(3)
    print(fork.exitcode, asked)


def test_a_sigchld_handler_may_ask_while_the_parent_waits(status: str) -> None:
    """Both are told the exit code: the handler's question is not "other code" that reaps."""
    done = ran(handler_asks, status)
    assert done.stdout == "3 [(False, 3)]\n", done


def plain_fork_in_the_block() -> None:
    read, write = os.pipe()
    with forksafe.forked() as fork:
        if fork.is_child:
            os.close(write)
            os.read(read, 1)
        else:
            plain = os.fork()
            os.close(write)
    if plain == 0:
        os._exit(7)
    print(fork.exitcode, os.waitstatus_to_exitcode(os.waitpid(plain, 0)[1]))


def test_a_plain_fork_inside_the_parents_block_is_let_through(status: str) -> None:
    """It is no child of forked(): it neither waits for that child nor kills it."""
    done = ran(plain_fork_in_the_block, status)
    assert done.stdout == "0 7\n", done


def fork_in_the_childs_block() -> None:
    with forksafe.forked() as fork:
        if fork.is_child:
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
    print("out")


def test_a_grandchild_does_not_come_out_either(status: str) -> None:
    """A plain fork inside the child's block ends at the end of that block, too."""
    done = ran(fork_in_the_childs_block, status)
    assert done.stdout == "out\n"


def test_a_grandchild_that_lives_on_does_not_hold_the_parent() -> None:
    """The child's end counts, not that of the descriptors it passed on."""
    read, write = os.pipe()
    with forksafe.forked() as fork:
        if fork.is_child:
            grandchild = os.fork()
            if grandchild == 0:
                os.close(write)
                os.read(read, 1)  # until the parent, outside the block, closes its end
                os._exit(0)
            os.close(write)
    assert fork.exitcode == 0
    os.close(read)
    os.close(write)


def test_blocks_nest() -> None:
    """A child may fork, and a parent may have two children at once."""
    with forksafe.forked() as first:
        if first.is_child:
            with forksafe.forked(check=False) as inner:
                if inner.is_child:
                    os._exit(4)
            assert inner.exitcode == 4
        else:
            with forksafe.forked() as second:
                assert second.is_child or first.pid != second.pid
    assert first.exitcode == second.exitcode == 0


# --- identity -------------------------------------------------------------------------------


def names_and_parents() -> None:
    import logging
    import multiprocessing

    logging.basicConfig(format="%(processName)s", stream=sys.stdout)
    with forksafe.forked(name="worker") as fork:
        if fork.is_child:
            parent = multiprocessing.parent_process()
            assert parent and (parent.pid, parent.name) == (os.getppid(), "MainProcess")
            assert parent.is_alive()
            logging.getLogger("a library's").error("")
            with forksafe.forked() as inner:
                if inner.is_child:
                    parent = multiprocessing.parent_process()
                    assert parent and (parent.pid, parent.name) == (os.getppid(), "worker")
                    print(multiprocessing.current_process().name)
    assert multiprocessing.current_process().name == "MainProcess"
    with forksafe.forked() as fork:
        if fork.is_child:
            print(multiprocessing.current_process().name)
    print(fork.name, fork.exitcode)


def test_the_child_has_a_name_and_its_true_parent(status: str) -> None:
    """In current_process(), parent_process() and log records, also in a child of a child."""
    done = ran(names_and_parents, status)
    assert done.stdout.split() == [
        "worker",
        "ForkedProcess-1:1",
        "ForkedProcess-2",
        "ForkedProcess-2",
        "0",
    ], done


def parents_of_grandchildren() -> None:
    import multiprocessing

    def grandchild(name: str) -> None:
        parent = multiprocessing.parent_process()
        assert parent and parent.pid == os.getppid(), (parent, os.getppid())
        assert multiprocessing.current_process().name == name
        assert parent.is_alive()
        parent.join(0.01)

    def child() -> None:
        name = multiprocessing.current_process().name
        pid = forksafe.safe_fork()
        if pid == 0:
            grandchild(name)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    context = multiprocessing.get_context("fork")
    process = context.Process(target=print, args=("started",))  # loads what it needs
    process.start()
    process.join()
    for _ in range(2):  # what the parent knows of itself is not true of a Process
        pid = forksafe.safe_fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    process = context.Process(target=child)
    process.start()
    process.join()
    print(process.exitcode)
    pid = forksafe.safe_fork()
    if pid == 0:
        assert multiprocessing.parent_process() is None
        os._exit(0)
    print(os.waitpid(pid, 0)[1])


def test_safe_fork_does_not_name_the_grandparent(status: str) -> None:
    """A parent_process() that was set is the true parent's after the fork; identity stays."""
    done = ran(parents_of_grandchildren, status)
    assert done.stdout == "started\n0\n0\n", done


# --- use ------------------------------------------------------------------------------------


def test_repr_tells_the_state() -> None:
    """For a person who prints it."""
    with forksafe.forked(name="w", check=False) as fork:
        if fork.is_child:
            os._exit(0 if repr(fork) == "<Fork 'w', in the child>" else 1)
        assert "running" in repr(fork)
        assert str(fork.pid) in repr(fork)
        fork.wait()
    assert "exit code 0" in repr(fork)


def test_a_block_is_for_one_use() -> None:
    """A second `with` says so."""
    block = forksafe.forked()
    with block as fork:
        pass
    assert fork.exitcode == 0
    with pytest.raises(RuntimeError, match="one use"):
        block.__enter__()


def test_bad_arguments_are_named() -> None:
    """Before anything is forked; those of the handle's methods, too."""
    with pytest.raises(TypeError, match="name must be a str or None, not 3"):
        forksafe.forked(name=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="grace must be .* not -1"):
        forksafe.forked(grace=-1)
    with pytest.raises(ValueError, match="grace"):
        forksafe.forked(grace=float("nan"))
    with pytest.raises(ValueError, match="grace must be .* not 'long'"):
        forksafe.forked(grace="long")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_hazard must be ignore, warn or raise, not 'stop'"):
        forksafe.forked(on_hazard="stop")  # type: ignore[arg-type]
    with forksafe.forked() as fork:
        if fork.is_parent:
            with pytest.raises(TypeError, match="timeout must be seconds or None, not 'long'"):
                fork.wait("long")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="'TERM' is not the number of a signal"):
                fork.send_signal("TERM")  # type: ignore[arg-type]


def test_no_descriptor_is_left_behind() -> None:
    """After the block the parent has the descriptors it had."""
    with forksafe.forked():
        pass

    def descriptors() -> set[str]:
        return set(os.listdir("/dev/fd"))

    before = descriptors()
    for _ in range(5):
        with forksafe.forked(check=False) as fork:
            if fork.is_child:
                os._exit(1)
        with pytest.raises(LookupError):
            with forksafe.forked():
                raise LookupError
    assert len(descriptors()) == len(before)


def without_descriptors() -> None:
    import resource

    with forksafe.forked():
        pass
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    os.close(lowest)
    try:
        while True:
            os.dup(0)
    except OSError:
        pass
    try:
        with forksafe.forked() as fork:
            if fork.is_parent:
                print("entered")
    except OSError as exc:
        print(errno.errorcode[exc.errno or 0])
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        print("no child")


def test_no_descriptor_to_be_had_leaves_no_child(status: str) -> None:
    """OSError on entering, and nobody is left behind."""
    done = ran(without_descriptors, status)
    assert done.stdout == "EMFILE\nno child\n", done


def handler_raises_behind_the_fork() -> None:
    from functools import partial

    class Stop(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stop

    with forksafe.forked():
        pass
    signal.signal(signal.SIGUSR1, stop)
    idle = threading.Event()
    thread = threading.Thread(target=idle.wait, daemon=True)
    thread.start()
    assert thread.ident
    # The last hooks, and in C: the handler's next chance is behind them.
    os.register_at_fork(after_in_parent=partial(signal.pthread_kill, thread.ident, signal.SIGUSR1))
    os.register_at_fork(after_in_parent=partial(time.sleep, 0.2))
    entered = False
    try:
        with forksafe.forked() as fork:
            if fork.is_child:
                time.sleep(5)
            entered = True
    except Stop:
        print("entered" if entered else "stopped")
    try:
        print(os.waitpid(-1, 0))
    except ChildProcessError:
        print("no child")


@pytest.mark.skipif(PYPY, reason="PyPy's partial has a frame, and the handler runs there")
def test_a_handler_that_raises_right_behind_the_fork_leaves_no_child(status: str) -> None:
    """Another thread takes the signal; the handler runs before the fork's result is kept.

    On a busy machine that thread may be late, and the handler runs elsewhere.
    """
    for _ in range(20):
        done = ran(handler_raises_behind_the_fork, status)
        assert done.stdout.endswith("no child\n"), done
        if done.stdout.startswith("stopped"):
            return
    pytest.fail("the handler never ran behind the fork")


def handler_raises_at_any_time() -> None:
    from queue import SimpleQueue

    class Stop(Exception):
        pass

    armed = False

    def stop(number: int, frame: object) -> None:
        nonlocal armed
        if armed and os.getpid() == parent:
            armed = False
            raise Stop

    def poke() -> None:
        while True:
            end = time.perf_counter() + delays.get()
            while time.perf_counter() < end:
                pass
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    parent = os.getpid()
    delays: SimpleQueue[float] = SimpleQueue()
    signal.signal(signal.SIGUSR1, stop)
    threading.Thread(target=poke, daemon=True).start()
    with forksafe.forked():
        pass
    before = set(os.listdir("/dev/fd"))
    stopped = 0
    for number in range(100):
        armed = True
        delays.put(number * 5e-5)
        try:
            with forksafe.forked(check=False) as fork:
                if fork.is_child:
                    os._exit(0)
            armed = False
        except Stop as exc:
            stopped += 1
            trace = exc.__traceback__ and exc.__traceback__.tb_next
            code = forksafe.forked.__exit__.__code__
            first = trace and (trace.tb_frame.f_code, trace.tb_lineno) == (
                code,
                code.co_firstlineno,
            )
            if first and sys.version_info >= (3, 11):
                fork.wait()
                before = set(os.listdir("/dev/fd"))
        try:
            print("left a child", os.waitpid(-1, 0))
        except ChildProcessError:
            pass
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            print("left signals blocked")
    if set(os.listdir("/dev/fd")) != before:
        print("left a descriptor")
    print("stopped" if stopped else "never stopped")


def test_a_handler_that_raises_at_any_time_leaves_nothing_behind(status: str) -> None:
    """No child, no signal that is blocked, no descriptor: another thread takes the signal.

    Since Python 3.11 a handler can raise as `__exit__()` begins, ahead of its first line: there no
    `with` statement can help (cpython gh-74174).
    """
    done = ran(handler_raises_at_any_time, status)
    assert done.stdout == "stopped\n", done


def warning_is_raised(how: str) -> None:
    import warnings

    warnings.simplefilter("error")
    idle = threading.Event()
    threading.Thread(target=idle.wait, daemon=True).start()
    try:
        if how == "forked":
            with forksafe.forked():
                pass
        else:
            forksafe.safe_fork()
    except DeprecationWarning as exc:
        print("multi-threaded" in str(exc))
    try:
        print(os.waitpid(-1, 0))
    except ChildProcessError:
        print("no child")


@pytest.mark.skipif(sys.version_info < (3, 15), reason="is no exception before 3.15")
@pytest.mark.parametrize("how", ["forked", "safe_fork"])
def test_the_warning_of_threads_as_an_exception_leaves_no_child(how: str, status: str) -> None:
    """It is raised before the fork, not behind it, where os.fork() raises it."""
    done = ran(warning_is_raised, status, how)
    assert done.stdout == "True\nno child\n", done


def test_errors_of_the_kernel_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entering raises what the fork raises, and leaves no descriptor."""
    before = len(os.listdir("/dev/fd"))

    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
        with forksafe.forked():
            raise AssertionError("entered")
    assert len(os.listdir("/dev/fd")) == before


def test_forked_from_a_thread() -> None:
    """The child's thread is its main thread, and its block ends the process."""
    codes = []

    def body() -> None:
        with forksafe.forked(check=False) as fork:
            if fork.is_child:
                main = threading.current_thread() is threading.main_thread()
                os._exit(6 if main and threading.active_count() == 1 else 1)
        codes.append(fork.exitcode)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert codes == [6]


@pytest.mark.parametrize("options", [(), ("-W", "default"), ("-W", "ignore"), ("-X", "dev")])
def test_the_warning_of_threads_as_a_warning(options: tuple[str, ...]) -> None:
    """With the filters of the interpreter itself, and with others, it does not stop the fork."""
    # As text, for the interpreter's filters have one for `__main__`.
    source = """
    import threading
    import forksafe
    idle = threading.Event()
    threading.Thread(target=idle.wait, daemon=True).start()
    with forksafe.forked():
        pass
    print("ok")
    """
    done = script(source, *options, quiet=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done
