"""Row 16: no signal handler ever sees a half-reset child, and no signal is lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Callable

import pytest
from harness import PYPY, READS_STACKS, Forker, command_of, run

if TYPE_CHECKING:
    from types import FrameType

FORKS = 60  # under each of four styles


def sends(parent: str) -> None:
    import os
    import time

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    print(flush=True)
    while os.getppid() == int(parent):
        os.killpg(0, signal.SIGUSR1)
        time.sleep(0.002)


def storm(fork: Forker) -> None:
    """Fork hundreds of times under SIGUSR1 every 2 ms, sent to the whole group from outside."""
    import os
    import subprocess
    from multiprocessing.util import register_after_fork

    parent = os.getpid()
    seen_half_reset = []
    reset_in = [parent]

    class Resource:
        pass

    first, last = Resource(), Resource()

    def reset(_: object) -> None:
        sum(range(20_000))  # the reset takes its time
        reset_in.append(os.getpid())

    reset.__module__ = "multiprocessing.of_a_test"  # its own entries are what makes a child whole
    register_after_fork(first, reset)
    register_after_fork(last, lambda _: None)

    def handler(number: int, frame: object) -> None:
        if os.getpid() not in reset_in:
            seen_half_reset.append(os.getpid())

    signal.signal(signal.SIGUSR1, handler)
    sender = subprocess.Popen(command_of(sends, "", str(parent)), stdout=subprocess.PIPE)
    assert sender.stdout is not None
    sender.stdout.readline()

    def child() -> tuple[list[int], set[int], int]:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        return seen_half_reset, {int(number) for number in mask}, len(reset_in)

    try:
        for _ in range(FORKS):
            half_reset, mask, resets = fork.run(child, end="_exit")
            assert not half_reset, "a handler saw a half-reset child"
            assert not mask, f"signals left blocked in the child: {mask}"
            assert resets == 2, f"{resets - 1} resets"
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        sender.kill()
        sender.wait()
    assert not seen_half_reset


def test_a_storm_of_signals(style: str) -> None:
    """Handlers see the child before its reset never, and masks are as they were."""
    outcome = run(storm, style, timeout=100)
    assert outcome.healthy, outcome


def test_storm_breaks_under_os_fork() -> None:
    """There is no reset at all, so that every handler comes before it."""
    outcome = run(storm, "raw", timeout=100)
    assert outcome.shows("a handler saw a half-reset child", "0 resets"), outcome


def test_storm_breaks_under_process() -> None:
    """Process resets after os.fork() has returned, with signals unblocked."""
    outcome = run(storm, "process-plain", timeout=100)
    assert outcome.shows("a handler saw a half-reset child"), outcome


class Stop(BaseException):
    """What a handler raises, as Ctrl-C does."""


def raising_handler(fork: Forker, how: str) -> None:
    import os

    # Registered before forksafe's, so they run before it on both sides, while signals are blocked:
    # the parent is held until its signal is there.
    read, write = os.pipe()
    parent = os.getpid()

    def in_child() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(parent, signal.SIGUSR1)
        os.write(write, b"..")

    os.register_at_fork(after_in_parent=lambda: os.read(read, 1), after_in_child=in_child)
    os_fork = forksafes_fork(how)

    def stop(number: int, frame: object) -> None:
        raise Stop

    signal.signal(signal.SIGUSR1, stop)
    try:
        os_fork()
        for _ in range(1000):  # handlers that are due run here at the latest
            pass
        print("lost")
    except Stop:
        who = "child" if os.getpid() != parent else "parent"
        print(f"raised in the {who}", flush=True)
    if os.getpid() != parent:
        os._exit(0)
    os.wait()


def forksafes_fork(how: str) -> Callable[[], int]:
    """Import forksafe here, behind the at-fork hooks that there are, and return a way to fork."""
    import os

    import forksafe

    def block() -> int:
        with forksafe.forked(check=False) as made:
            if made.is_child:
                os._exit(0)
        return made.pid

    if how == "safe_fork":
        return forksafe.safe_fork
    if how == "hook":
        forksafe.install()
    return block if how == "forked" else os.fork


@pytest.mark.parametrize(
    "how",
    [
        "safe_fork",
        pytest.param(
            "hook",
            marks=pytest.mark.skipif(
                PYPY, reason="PyPy has no sigtimedwait: the handler runs, and raises, in the hook"
            ),
        ),
    ],
)
def test_an_exception_of_a_handler_is_not_lost(how: str) -> None:
    """Ctrl-C during a fork is a KeyboardInterrupt behind it, in the parent and in the child."""
    outcome = run(raising_handler, "raw", how)
    assert sorted(outcome.stdout.splitlines()) == ["raised in the child", "raised in the parent"]
    assert outcome.stderr == ""


def taken_by_another_thread(fork: Forker, how: str, *names: str) -> None:
    import ctypes
    import functools
    import os
    import sys
    import threading
    import time
    from multiprocessing.util import register_after_fork

    ran: list[int] = []
    inside: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith(package):
                inside.append(number)
                raise Stop
            frame = frame.f_back

    idle = threading.Event()
    thread = threading.Thread(target=idle.wait, daemon=True)
    thread.start()
    assert thread.ident is not None
    # Registered before forksafe's, so they run behind that: another thread takes the signals, which
    # the forking one blocks, and has the time to. The handlers run in this one, inside the hooks,
    # and as these are in C, and look for no signals themselves, inside forksafe's.
    os.register_at_fork(before=functools.partial(time.sleep, 0.01))
    pthread_kill = ctypes.CDLL(None).pthread_kill
    for name in names:
        number = getattr(signal, name)
        signal.signal(number, stop)
        kill = functools.partial(pthread_kill, ctypes.c_ulong(thread.ident), int(number))
        os.register_at_fork(before=kill)
    os_fork = forksafes_fork(how)
    package = os.path.dirname(sys.modules["forksafe"].__file__ or "") + os.sep
    sys.unraisablehook = list[object]().append  # in C, too
    register_after_fork(stop, lambda _: ran.append(os.getpid()))
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for _ in range(25):
        try:
            os_fork()
        except Stop:
            pass
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if os.getpid() != parent:
            os._exit(0 if blocked == mask and ran == [os.getpid()] else 1)
        assert blocked == mask, f"left blocked in the parent: {blocked}"
        assert os.wait()[1] == 0, "the child is not whole"
        time.sleep(0.002)  # for a signal that the other thread has not taken yet
    assert inside, "no handler ran inside of forksafe"


@pytest.mark.skipif(PYPY, reason="PyPy runs no handler inside of the hooks, so there is no fault")
@pytest.mark.parametrize("names", [("SIGINT",), ("SIGINT", "SIGTERM")], ids=len)
@pytest.mark.parametrize("how", ["safe_fork", "hook"])
def test_a_signal_that_another_thread_takes_leaves_no_mask_behind(
    how: str, names: tuple[str, ...]
) -> None:
    """Handlers run inside the hooks, and raise; parent and child are whole nevertheless.

    Two come at once where Ctrl-C meets a supervisor's SIGTERM: each stops one function.
    """
    outcome = run(taken_by_another_thread, "raw", how, *names)
    assert outcome.healthy, outcome


def at_any_time(fork: Forker, how: str) -> None:
    """Another process sends a signal at some time around each fork; its handler raises once."""
    import functools
    import os
    import random
    import sys
    import threading
    import time

    rounds, longest = 200, 0.003  # seconds; a fork takes 1 to 2 ms
    parent = os.getpid()
    wanted, want = os.pipe()
    sender = os.fork()
    if sender == 0:
        os.close(want)
        times = random.Random(0)
        while os.read(wanted, 1):
            end = time.perf_counter() + times.random() * longest
            while time.perf_counter() < end:
                pass
            os.kill(parent, signal.SIGUSR1)
        os._exit(0)

    ran = raised = lost = 0
    stage = 0

    def stop(number: int, frame: object) -> None:
        nonlocal ran
        ran += 1
        if ran == 1:
            raise Stop

    def one_round() -> None:
        nonlocal raised, stage
        while stage < 3:
            try:
                stage += 1
                if stage == 1:
                    os.write(want, b".")
                    if os_fork() == 0:
                        os._exit(0)
                elif stage == 2:
                    deadline = time.monotonic() + 10
                    while ran == 0 and time.monotonic() < deadline:
                        time.sleep(0.0005)
                else:
                    time.sleep(0.001)
            except Stop:
                raised += 1

    handler = functools.partial(stop)
    signal.signal(signal.SIGUSR1, handler)
    idle = threading.Event()
    threading.Thread(target=idle.wait, daemon=True).start()
    os_fork = forksafes_fork(how)
    sys.unraisablehook = list[object]().append
    for _ in range(rounds):
        ran = raised = stage = 0
        while stage < 3:
            try:
                one_round()
            except Stop:  # between two lines of it
                raised += 1
        assert ran == 1, f"the handler ran {ran} times for one signal"
        lost += raised == 0
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "signals left blocked"
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    os.kill(sender, signal.SIGKILL)
    assert signal.getsignal(signal.SIGUSR1) is handler
    # As the first line of a hook in Python begins there is no way to catch it.
    assert lost <= rounds / 20, f"of {rounds} exceptions {lost} were lost"


@pytest.mark.skipif(PYPY, reason="PyPy runs handlers, and drops what they raise, where it likes")
@pytest.mark.parametrize("how", ["imported", "safe_fork", "hook", "forked"])
def test_what_a_handler_raises_at_any_time_reaches_the_program(how: str) -> None:
    """Beside another thread, which takes the signal; and the handler runs once."""
    outcome = run(at_any_time, "raw", how, timeout=100)
    assert outcome.healthy, outcome


def interrupted_launch(fork: Forker) -> None:
    """Ctrl-C comes right ahead of the fork of a child that is about to exec."""
    import _thread
    import os
    import subprocess

    # In C, and behind forksafe's hook, which leaves this fork alone: nothing is blocked.
    os.register_at_fork(before=_thread.interrupt_main)
    forksafes_fork("hook")
    try:
        subprocess.run(["true"], preexec_fn=os.getpid, check=True)
    except KeyboardInterrupt:
        return
    raise AssertionError("the KeyboardInterrupt is lost")


@pytest.mark.skipif(PYPY, reason="PyPy runs the handler, and drops what it raises, in the hook")
def test_ctrl_c_as_a_child_is_launched_reaches_the_program() -> None:
    """Also where forksafe does nothing else for the fork."""
    outcome = run(interrupted_launch, "raw")
    assert outcome.healthy, outcome


def fork_in_a_hook(fork: Forker, how: str) -> None:
    """A hook that was registered before forksafe's, and so runs behind it, forks too."""
    import os

    def blocked() -> set[int]:
        return {int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())}

    def exit_code(pid: int) -> int:
        if pid == 0:
            os._exit(0 if blocked() == own else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def hook() -> None:
        if not codes:
            codes.append(-1)
            codes[0] = exit_code(os_fork())
            masks.append(blocked())

    codes: list[int] = []
    masks: list[set[int]] = []
    os.register_at_fork(before=hook)
    os_fork = forksafes_fork(how)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    own = blocked()
    assert exit_code(os_fork()) == 0, "signals stay blocked in the child"
    assert codes == [0], "signals stay blocked in the child that the hook has forked"
    assert signal.SIGUSR1 in masks[0], "the inner fork has unblocked them for the outer one"
    assert blocked() == own


@pytest.mark.parametrize("how", ["safe_fork", "hook"])
def test_a_fork_inside_of_a_fork(how: str) -> None:
    """Each child has the program's mask, and the outer fork goes on with signals blocked."""
    outcome = run(fork_in_a_hook, "raw", how)
    assert outcome.healthy, outcome


def in_a_stream(fork: Forker, how: str, method: str) -> None:
    """A handler raises while a stream is flushed, or asked for its number, before the fork."""
    import os
    import sys

    class Stream:
        tripped = False

        def trip(self) -> None:
            if not self.tripped:
                self.tripped = True
                signal.raise_signal(signal.SIGUSR1)

        def __getattr__(self, name: str) -> Callable[[], object]:
            return self.trip if name == method else lambda: None

    def stop(number: int, frame: object) -> None:
        raise TimeoutError  # an Exception, as those are that a stream raises by itself

    os_fork = forksafes_fork(how)
    signal.signal(signal.SIGUSR1, stop)
    parent, raised = os.getpid(), False
    sys.stdout = Stream()  # a program may put anything there
    try:
        os_fork()
        for _ in range(1000):
            pass
    except TimeoutError:
        raised = True
    if os.getpid() != parent:
        os._exit(1 if raised else 0)
    assert os.wait()[1] == 0, "it is raised in the child, too"
    assert raised, "it is lost"


@pytest.mark.skipif(PYPY, reason="PyPy runs the handler, and drops what it raises, in the hook")
@pytest.mark.parametrize("method", ["flush", "fileno"])
@pytest.mark.parametrize("how", ["safe_fork", "hook"])
def test_what_a_handler_raises_in_a_stream_reaches_the_program(how: str, method: str) -> None:
    """A time limit by SIGALRM, say, while a full pipe is waited for."""
    outcome = run(in_a_stream, "raw", how, method)
    assert outcome.healthy, outcome


def cut_off(fork: Forker, how: str, module: str, name: str) -> None:
    """A handler raises in a function that is called before the fork."""
    import _thread
    import os
    import sys
    import threading
    from multiprocessing.util import register_after_fork

    os_fork = forksafes_fork(how)
    namespace = vars(sys.modules[module])
    function = namespace[name]

    def trip(*args: object) -> object:
        namespace[name] = function
        _thread.interrupt_main()
        return function(*args)

    namespace[name] = trip
    held, there = threading.Lock(), threading.Event()

    def hold() -> None:
        with held:
            there.set()
            threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    there.wait()
    ran: list[int] = []

    def stop(number: int, frame: object) -> None:
        ran.append(number)
        raise Stop

    signal.signal(signal.SIGINT, stop)
    masks: list[set[int]] = []

    def own(_: object) -> None:
        masks.append({int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())})

    own.__module__ = "multiprocessing.of_a_test"  # its entries run with signals blocked
    register_after_fork(own, own)
    parent, raised = os.getpid(), 0
    read, write = os.pipe()
    try:
        os_fork()
        for _ in range(1000):
            pass
    except Stop:
        raised += 1
    if os.getpid() != parent:
        well = not raised and masks and signal.SIGINT in masks[0]
        well = well and (not READS_STACKS or held.acquire(timeout=1))
        os.write(write, b"1" if well else b"0")
        os._exit(0)
    os.wait()
    assert os.read(read, 1) == b"1", "the child is not as if no handler had raised"
    assert (len(ran), raised) == (1, 1), f"it ran {len(ran)} times, and {raised} came out"
    assert signal.getsignal(signal.SIGINT) is stop, "forksafe's handler stays"


@pytest.mark.skipif(PYPY, reason="PyPy runs the handler, and drops what it raises, in the hook")
@pytest.mark.parametrize(
    ("module", "name"),
    [("forksafe._hook", "flush"), ("forksafe._steps._locks", "stack_of")],
    ids=["at first", "behind the look"],
)
@pytest.mark.parametrize("how", ["safe_fork", "hook"])
def test_what_a_handler_cuts_off_is_done_nevertheless(how: str, module: str, name: str) -> None:
    """Signals are blocked in the child's reset, and the program's handler is in place behind it."""
    outcome = run(cut_off, "raw", how, module, name)
    assert outcome.healthy, outcome
