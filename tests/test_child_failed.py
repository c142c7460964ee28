"""`ChildFailedError` says what went wrong in the child, wherever a person reads it."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest
from harness import python, run, script

import forksafe
from forksafe.exceptions import ChildFailedError

INNER = Path(__file__).parent / "programs" / "failing_tests.py"


def no_pidfds(pid: int, flags: int = 0) -> int:
    """Answer as a kernel without pidfds does."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture(params=["pidfd", "pipe"] if hasattr(os, "pidfd_open") else ["pipe"], autouse=True)
def status(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Without pidfds the pipe tells both: that the child has ended, and why it failed."""
    if request.param == "pipe":
        monkeypatch.setattr(os, "pidfd_open", no_pidfds, raising=False)
    return str(request.param)


def fail(exc: BaseException) -> None:
    raise exc


def failed(exc: BaseException, name: str = "w") -> ChildFailedError:
    """Return what is raised where the child raises `exc`."""
    with pytest.raises(ChildFailedError) as raised:
        with forksafe.forked(name=name) as fork:
            if fork.is_child:
                fail(exc)
    return raised.value


def test_the_childs_traceback_is_in_the_message(capfd: pytest.CaptureFixture[str]) -> None:
    """The reason in the first line, then where; on stderr it is, as before, once."""
    error = failed(LookupError("no such user"))
    first, _, rest = str(error).partition("\n")
    assert first == f"forked child w (pid {error.pid}) ended with exit code 1: " + error.reason
    assert error.reason == "LookupError: no such user"
    assert rest.startswith("\nIn the child:\nTraceback (most recent call last):\n")
    assert "in fail\n    raise exc\n" in rest
    assert rest.endswith("\nLookupError: no such user\n")
    assert error.traceback in rest
    told = capfd.readouterr().err
    assert told.count("LookupError: no such user") == 1
    assert "in fail\n" in told


def test_it_is_whole_after_pickling() -> None:
    """As it goes from a worker to its master."""
    error = failed(LookupError("é\udc80"))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is ChildFailedError
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
    assert error.reason == "LookupError: é\\udc80"


@pytest.mark.parametrize(
    ("exc", "code", "reason"),
    [
        (SystemExit("good bye"), 1, "SystemExit: good bye"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt"),
        (SystemExit(3), 3, ""),
        (ValueError("two\nlines"), 1, "ValueError: two"),
        (AssertionError(), 1, "AssertionError"),
    ],
)
def test_the_reason_is_one_line(exc: BaseException, code: int, reason: str) -> None:
    """Where the child ends by what is no failure of its code there is no traceback."""
    error = failed(exc)
    assert (error.exitcode, error.reason) == (code, reason)
    assert bool(error.traceback) is isinstance(exc, Exception)


def test_a_child_that_is_killed_tells_nothing() -> None:
    """Nor does one that ends by ``os._exit()``; the message says so."""
    with pytest.raises(ChildFailedError, match="exit code 7 and told no reason") as raised:
        with forksafe.forked() as fork:
            if fork.is_child:
                os._exit(7)
    assert (raised.value.reason, raised.value.traceback) == ("", "")


def test_a_traceback_that_is_long_is_cut() -> None:
    """Its end is what tells most."""
    error = failed(ValueError("x" * 100_000 + "\n" + "y" * 5_000 + "\nthe last line"))
    assert error.traceback.startswith("[its last ")
    assert error.traceback.endswith("the last line\n")
    assert 5_000 < len(error.traceback) < 8192
    assert len(error.reason) == 500


def fills_the_pipe(status: str) -> None:
    if status == "pipe":
        vars(os).pop("pidfd_open", None)
    before = set(os.listdir("/dev/fd"))
    try:
        with forksafe.forked() as fork:
            if fork.is_child:
                for fd in map(int, set(os.listdir("/dev/fd")) - before):
                    try:
                        os.set_blocking(fd, False)
                        while True:
                            os.write(fd, bytes(4096))
                    except BlockingIOError:
                        os.set_blocking(fd, True)
                        print("full")
                    except OSError:
                        pass  # the other end, or that of the listing
                raise LookupError
    except ChildFailedError as exc:
        print(exc.exitcode)


def test_a_pipe_that_is_full_holds_nobody(status: str) -> None:
    """Neither the child, which writes into what is left of it, nor the parent."""
    done = run(fills_the_pipe, "", status)
    assert done.stdout == "full\n1\n", done
    assert "LookupError" in done.stderr


def opens_in_the_pipes_place(path: str) -> None:
    try:
        with forksafe.forked() as fork:
            if fork.is_child:
                os.closerange(3, 100)
                while os.open(path, os.O_CREAT | os.O_WRONLY) < 50:
                    pass
                raise LookupError
    except ChildFailedError as exc:
        print(exc.exitcode, exc.reason)


def test_what_the_program_opened_in_the_pipes_place_is_not_written_to(tmp_path: Path) -> None:
    """A child that closes all descriptors, as daemons do, and opens its own."""
    path = tmp_path / "file"
    done = run(opens_in_the_pipes_place, "", str(path))
    assert done.stdout == "1 \n", done
    assert "LookupError" in done.stderr
    assert path.read_text() == ""


def test_grandchildren_neither_tell_nor_hold_the_parent() -> None:
    """One lives on with the pipe; another comes to the end of the same block, and fails there."""
    read, write = os.pipe()
    with pytest.raises(ChildFailedError) as raised:
        with forksafe.forked() as fork:
            if fork.is_child:
                if os.fork() == 0:
                    os.close(write)
                    os.read(read, 1)  # until the parent closes its end
                    os._exit(0)
                other = os.fork()
                if other == 0:
                    raise LookupError("of the grandchild")
                os.close(write)
                os.waitpid(other, 0)
                raise LookupError("of the child")
    os.close(write)
    os.close(read)
    assert raised.value.reason == "LookupError: of the child"
    assert "of the grandchild" not in str(raised.value)


def test_a_child_of_a_child_is_told_of_by_both() -> None:
    """The message of the inner error is the reason of the outer one."""
    with pytest.raises(ChildFailedError) as raised:
        with forksafe.forked(name="outer") as outer:
            if outer.is_child:
                with forksafe.forked(name="inner") as inner:
                    if inner.is_child:
                        raise LookupError("of the inner")
    assert "forked child inner" in raised.value.reason
    assert raised.value.reason.endswith("exit code 1: LookupError: of the inner")


def test_a_broken_stderr_does_not_keep_the_parent_from_being_told() -> None:
    """Nor does an excepthook that fails."""
    hook = sys.excepthook
    sys.excepthook = lambda *_: 1 / 0
    try:
        error = failed(LookupError("no such user"))
    finally:
        sys.excepthook = hook
    assert error.reason == "LookupError: no such user"


def test_how_pytest_shows_it(tmp_path: Path) -> None:
    """The line of the test, the child's traceback, no line of forksafe's; outcomes by name."""
    options = ("-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path)
    done = python(*options, shutil.copy(INNER, tmp_path / "test_inner.py"), timeout=60)
    assert "5 failed" in done.stdout, done
    assert os.path.dirname(forksafe.__file__) not in done.stdout, done
    assert re.search(r"^E +LookupError: no such user$", done.stdout, re.M), done
    assert "timeout must be seconds or None, not 'long'" in done.stdout
    for outcome in ("Skipped: no network", "XFailed: not yet", "Failed: no use"):
        assert f"exit code 1: {outcome}" in done.stdout


def test_nothing_is_paid_for_where_nothing_fails() -> None:
    """The child imports nothing more for it, and the parent has the descriptors it had."""
    before = set(os.listdir("/dev/fd"))
    done = script(  # as text: nothing is loaded yet that a failure could need
        """
        import atexit, sys
        import forksafe
        with forksafe.forked():
            pass
        before = set(sys.modules)
        with forksafe.forked() as fork:
            if fork.is_child:
                atexit.register(lambda: print(set(sys.modules) - before))
        """
    )
    assert done.stdout == "set()\n", done
    failed(LookupError())
    assert set(os.listdir("/dev/fd")) == before
