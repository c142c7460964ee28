"""What works under a plain os.fork() works under forksafe: faults that were there once, by kind."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable

import pytest
from harness import PYPY, Forker, run

BOTH = pytest.mark.parametrize("style", ["safe_fork", "hook"])


def _os_fork(fork: Forker) -> Callable[[], int]:
    if fork.style == "safe_fork":
        import forksafe

        return forksafe.safe_fork
    return os.fork


def full_pipe(fork: Forker) -> None:
    """stdout is a full pipe that nobody reads, and text waits in front of it."""
    import fcntl
    import signal
    import time

    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(write, True)
    os.dup2(write, 1)
    sys.stdout.write("waits")
    signal.alarm(10)
    begin = time.monotonic()
    child = fork(int, end="_exit")
    child.join()
    assert time.monotonic() - begin < 5, "the fork waited for a reader"
    assert fcntl.fcntl(1, fcntl.F_GETFL) & os.O_NONBLOCK == 0
    while len(os.read(read, 1 << 20)) == 1 << 20:
        pass
    sys.stdout.flush()
    os.close(write)
    os.dup2(2, 1)
    with open(read, "rb") as left:
        assert left.read() == b"waits", "not written once"


@pytest.mark.parametrize("style", ["safe_fork", "hook", "forked"])
def test_a_full_pipe_holds_up_no_fork(style: str) -> None:
    """Nobody's reader is waited for; what waits is written once, by the parent, later."""
    outcome = run(full_pipe, style, env={"PYTHONUNBUFFERED": ""})
    assert outcome.healthy, outcome


def no_descriptor_left(fork: Forker) -> None:
    import resource

    if fork.style == "safe_fork":
        import forksafe  # noqa: F401 - what a fork needs is loaded here

    read, write = os.pipe()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    pid = _os_fork(fork)()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (*held, read, write):
        os.close(fd)


@BOTH
def test_a_fork_needs_no_descriptor(style: str) -> None:
    """The first fork of a program that has none left works."""
    outcome = run(no_descriptor_left, style)
    assert outcome.healthy, outcome


def no_python_frame(fork: Forker) -> None:
    """A thread runs os.fork() itself: no frame of Python is below the hooks."""
    import _thread
    import time

    pid = os.getpid()
    _thread.start_new_thread(os.fork, ())
    if os.getpid() == pid:
        time.sleep(0.3)
        os._exit(0)


def test_a_fork_without_a_frame_of_python() -> None:
    """Nothing is raised in the hooks."""
    outcome = run(no_python_frame, "hook")
    assert outcome.returncode == 0, outcome
    assert outcome.output == "", outcome


def whose_warning(fork: Forker) -> None:
    """Python's own warning of a fork beside threads."""
    import inspect
    import threading
    import warnings

    threading.Thread(target=threading.Event().wait, daemon=True).start()
    frame = inspect.currentframe()
    assert frame is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if fork.style == "forked":
            import forksafe

            line = frame.f_lineno + 1
            with forksafe.forked():
                pass
        else:
            function = _os_fork(fork)
            line = frame.f_lineno + 1
            pid = function()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
    found = [(one.filename, one.lineno) for one in caught if "multi-threaded" in str(one.message)]
    assert found == [(frame.f_code.co_filename, line)], found
    os._exit(0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python warns of it since 3.12")
@pytest.mark.parametrize("style", ["safe_fork", "hook", "forked", "raw"])
def test_the_warning_names_the_callers_line(style: str) -> None:
    """As it does under os.fork()."""
    outcome = run(whose_warning, style, options=("-W", "always"))
    assert outcome.healthy, outcome


def preloaded_behind_a_manager(fork: Forker) -> None:
    import gc
    import multiprocessing

    import forksafe

    forksafe.install(freeze=True)
    manager = multiprocessing.get_context("fork").Manager()
    heap = [[number] for number in range(200_000)]
    assert fork.run(lambda: len(gc.get_objects()), end="_exit") < 30_000, "not frozen"
    frozen = gc.get_freeze_count()
    for _ in range(5):
        fork.run(int, end="_exit")
    assert gc.get_freeze_count() == frozen, "frozen again for nothing"
    assert heap
    manager.shutdown()


@pytest.mark.skipif(PYPY, reason="PyPy's collector freezes nothing")
def test_freeze_is_not_used_up_by_an_early_fork() -> None:
    """The Manager's own fork comes before what is preloaded."""
    outcome = run(preloaded_behind_a_manager, "hook")
    assert outcome.healthy, outcome


def beside_a_thread(fork: Forker, how: str) -> None:
    import sys
    import threading
    import time

    leave = threading.Event()

    def work() -> None:
        while not leave.is_set():
            time.sleep(0.001)

    thread = threading.Thread(target=work if how == "that works" else leave.wait, daemon=True)
    thread.start()
    for interval in (0.002, 0.2, 0.004):
        sys.setswitchinterval(interval)
        for _ in range(2):
            in_child = fork.run(sys.getswitchinterval, end="_exit")
            for found in (in_child, sys.getswitchinterval()):
                assert abs(found - interval) < 1e-5, (found, interval)
    leave.set()
    thread.join()
    assert fork.run(sys.getswitchinterval, end="_exit") < 0.005, "as set last"


def at_once(fork: Forker) -> None:
    import os
    import sys
    import threading

    found = []
    leave = threading.Event()

    def compute() -> None:
        while not leave.is_set():
            sum(range(100))

    def forks() -> None:
        for _ in range(20):
            pid = fork.os_fork()
            if pid == 0:
                os._exit(round(sys.getswitchinterval() * 1e3))
            found.append(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))

    usual = round(sys.getswitchinterval() * 1e3)
    threads = [threading.Thread(target=target) for target in (compute, forks, forks, forks)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    leave.set()
    assert [*found, round(sys.getswitchinterval() * 1e3)] == [usual] * 61


@pytest.mark.parametrize("style", ["raw", "safe_fork", "hook"])
def test_the_switch_interval_where_threads_fork_at_once(style: str) -> None:
    """Each begins a turn while another one's is under way, and ends it likewise."""
    outcome = run(at_once, style)
    assert outcome.healthy, outcome


@pytest.mark.parametrize("how", ["that sleeps", "that works"])
def test_the_switch_interval_is_as_it_was(style: str, how: str) -> None:
    """It is longer from the look at the threads to the fork, and the program's again behind it."""
    outcome = run(beside_a_thread, style, how)
    assert outcome.healthy, outcome


def local_of_another_thread(fork: Forker) -> None:
    import gc
    import threading
    import weakref

    class Local:
        pass

    seen: list[Any] = []
    inside, go = threading.Event(), threading.Event()

    def work() -> None:
        local = Local()
        seen.append(weakref.ref(local))
        inside.set()
        go.wait()

    gc.disable()
    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    fork.run(int, end="_exit")
    go.set()
    thread.join()
    assert seen[0]() is None, "the look at the threads keeps a frame alive"


@pytest.mark.skipif(PYPY, reason="PyPy counts no references")
def test_what_other_threads_let_go_of_is_gone(style: str) -> None:
    """Not only when the collector runs, which would run finalizers in an order of its own."""
    outcome = run(local_of_another_thread, style)
    assert outcome.healthy, outcome


def beside_compiled_code(fork: Forker) -> None:
    """Other threads compute; on PyPy their code is compiled soon, and has no frames to be read."""
    import datetime
    import threading

    import forksafe

    stop, failed = threading.Event(), []

    def compute() -> None:
        try:
            while not stop.is_set():
                assert datetime.datetime.strptime("2020-01-01", "%Y-%m-%d").year == 2020
        except BaseException as exc:
            failed.append(repr(exc))

    threads = [threading.Thread(target=compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    sys.setswitchinterval(1e-5)
    for number in range(100):
        assert fork(int, end="_exit").join() == 0
        if number % 10 == 0:
            forksafe.audit()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed, failed


@BOTH
def test_other_threads_go_on_unharmed(style: str) -> None:
    """On PyPy sys._current_frames() made them raise, or ended the process."""
    outcome = run(beside_compiled_code, style, timeout=100)
    assert outcome.healthy, outcome


def interrupted_callback(fork: Forker) -> None:
    """Ctrl-C comes while a callback of the program runs in the child."""
    import signal
    from multiprocessing.util import register_after_fork

    class Registered:
        pass

    objects = [Registered(), Registered()]
    ran: list[int] = []

    def interrupt(_: Registered) -> None:
        signal.raise_signal(signal.SIGINT)
        ran.append(0)

    register_after_fork(objects[0], interrupt)
    register_after_fork(objects[1], lambda _: ran.append(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parent = os.getpid()
    pid = 0
    try:
        pid = _os_fork(fork)()
        for _ in range(100):
            pass
    except KeyboardInterrupt:
        assert os.getpid() != parent
        assert ran == [1], ran
        os._exit(7)
    if pid == 0:
        os._exit(8)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 7, {8: "the KeyboardInterrupt is lost"}.get(code, code)


@BOTH
def test_ctrl_c_in_a_callback_reaches_the_program(style: str) -> None:
    """Not a word of it is lost inside of os.fork(), and the other callbacks run."""
    if PYPY and style == "hook":
        pytest.skip("on PyPy sys.unraisablehook has it: nothing raises it behind os.fork()")
    outcome = run(interrupted_callback, style)
    assert outcome.healthy, outcome


def handler_in_launch(fork: Forker) -> None:
    """A signal handler forks while Process.start() is about to."""
    import multiprocessing
    import multiprocessing.popen_fork
    import signal
    from multiprocessing.util import register_after_fork

    class Registered:
        pass

    registered = Registered()
    ran: list[int] = []
    told: list[Any] = []
    register_after_fork(registered, lambda _: ran.append(os.getpid()))
    os_fork = _os_fork(fork)
    read, write = os.pipe()

    def handler(number: int, frame: object) -> None:
        if os_fork() == 0:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            os.write(write, b"%d %d" % (ran.count(os.getpid()), len(mask)))
            os._exit(0)
        os.wait()
        told.append(os.read(read, 100))

    signal.signal(signal.SIGUSR1, handler)
    pipe = os.pipe

    def interrupted() -> tuple[int, int]:
        os.pipe = pipe
        signal.raise_signal(signal.SIGUSR1)
        return pipe()

    os.pipe = interrupted
    process = multiprocessing.get_context("fork").Process(
        target=lambda: os.write(write, b"%d" % ran.count(os.getpid()))
    )
    process.start()
    process.join()
    assert told == [b"1 0"], f"callbacks run, signals blocked: {told}"
    assert os.read(read, 100) == b"1", "of the Process itself"


@BOTH
def test_a_handler_that_forks_inside_of_a_launch(style: str) -> None:
    """Its child is reset, and takes signals; and the callbacks of the Process run once."""
    outcome = run(handler_in_launch, style)
    assert outcome.healthy, outcome


def billiard_alone(fork: Forker) -> None:
    """billiard.util is not imported in the parent: billiard imports it in the child."""
    import importlib
    import multiprocessing.util

    billiard = importlib.import_module("billiard")

    class Registered:
        pass

    registered = Registered()
    read, write = os.pipe()
    multiprocessing.util.register_after_fork(registered, lambda _: os.write(write, b"x"))
    assert "billiard.util" not in sys.modules
    process = billiard.get_context("fork").Process(target=int)
    process.start()
    process.join()
    assert os.read(read, 100) == b"x", "not once"


def test_billiard_that_imports_its_util_in_the_child() -> None:
    """The callbacks run once."""
    pytest.importorskip("billiard")
    outcome = run(billiard_alone, "hook")
    assert outcome.healthy, outcome
