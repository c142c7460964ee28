"""``on_hazard`` and ``allow``, under every way to fork."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fresh import run, value

WAYS = ("safe_fork", "forked", "hook")


class Forks:
    """One fork in each way, whose child reports the warnings that it saw itself."""

    def __init__(self, way: str, on_hazard: str, *allow: str) -> None:
        import forksafe

        self.way = way
        self.options: Any = {"on_hazard": on_hazard, "allow": allow}
        if way == "hook":
            forksafe.install(**self.options)

    def __call__(self) -> int:
        """Fork; return the child's exit status."""
        import forksafe

        if self.way == "forked":
            with forksafe.forked(check=False, **self.options) as fork:
                pass
            return fork.wait()
        pid = forksafe.safe_fork(**self.options) if self.way == "safe_fork" else os.fork()
        if pid == 0:
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_thread(name: str = "MyMetrics-1") -> None:
    import threading

    threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()


def warned(way: str, *allow: str) -> Any:
    import warnings

    forks = Forks(way, "warn", *allow)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        told = []
        assert forks() == 0
        told.append(ours(caught))
        start_thread("MyMetrics-1")
        assert forks() == 0
        told.append(ours(caught))
        assert forks() == 0
        told.append(ours(caught))
        start_thread("Other")
        assert forks() == 0
        told.append(ours(caught))
        start_thread("MyMetrics-2")
        assert forks() == 0
        told.append(ours(caught))
    return told


def ours(caught: list[Any]) -> list[Any]:
    from forksafe.exceptions import ForkHazardWarning

    found = [[str(w.message), w.filename] for w in caught if w.category is ForkHazardWarning]
    caught.clear()
    return found


@pytest.mark.parametrize("way", WAYS)
def test_warn_tells_what_needs_action_once(way: str) -> None:
    """Nothing, then the thread, then nothing new, then both."""
    nothing, first, again, second, third = value(warned, way)
    assert nothing == []
    ((text, filename),) = first
    assert "thread 'MyMetrics-1'" in text
    assert "threading:Event.wait" in text
    assert "after the fork" in text  # the remedy
    assert os.path.basename(filename) == os.path.basename(__file__)  # who forks
    assert again == []
    ((text, _),) = second
    assert "'MyMetrics-1'" in text and "'Other'" in text
    assert third == []  # another number is no news


@pytest.mark.parametrize("way", WAYS)
def test_what_is_allowed_is_not_told(way: str) -> None:
    nothing, first, _again, second, _third = value(warned, way, "thread:MyMetrics-*")
    assert nothing == first == []
    ((text, _),) = second
    assert "MyMetrics" not in text and "'Other'" in text


def raised(way: str) -> Any:
    import warnings

    import forksafe.exceptions

    forks = Forks(way, "raise")
    assert forks() == 0
    start_thread()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            forks()
        except forksafe.exceptions.UnsafeForkError as exc:
            assert not ours(caught)
            assert [h.kind for h in exc.hazards] == ["thread"]
            assert not children(), "it has forked"
            return ["raised", str(exc)]
        return ["warned", ours(caught)[0][0]]


def children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


@pytest.mark.parametrize("way", ["safe_fork", "forked"])
def test_raise_does_not_fork(way: str) -> None:
    """The error carries the hazards, and names them."""
    how, text = value(raised, way)
    assert how == "raised"
    assert "MyMetrics-1" in text and "not forked" in text


def with_a_temporary_file(way: str) -> Any:
    import tempfile

    import forksafe.exceptions

    forks = Forks(way, "raise")
    with tempfile.NamedTemporaryFile() as file:
        try:
            status: Any = forks()
        except forksafe.exceptions.UnsafeForkError as exc:
            assert not children(), "it has forked"
            status = [h.kind for h in exc.hazards]
        return [status, os.path.exists(file.name)]


@pytest.mark.parametrize(("way", "status"), [("safe_fork", ["temporary-file"]), ("forked", 0)])
def test_raise_and_a_temporary_file(way: str, status: Any) -> None:
    """The child of a forked() block leaves the file alone, so nothing is wrong with that fork."""
    assert value(with_a_temporary_file, way) == [status, True]


def test_raise_in_the_hook_warns() -> None:
    """Nothing that a hook raises stops os.fork()."""
    how, text = value(raised, "hook")
    assert how == "warned"
    assert "MyMetrics-1" in text


def errors(way: str) -> Any:
    import warnings

    import forksafe.exceptions

    warnings.simplefilter("error", forksafe.exceptions.ForkHazardWarning)
    forks = Forks(way, "warn")
    assert forks() == 0
    start_thread()
    try:
        forks()
    except forksafe.exceptions.UnsafeForkError:
        return ["raised", children()]
    return ["forked", children()]


@pytest.mark.parametrize("way", ["safe_fork", "forked"])
def test_warnings_as_errors_do_not_fork(way: str) -> None:
    """An error after the fork would cost the caller the child's pid."""
    assert value(errors, way) == ["raised", False]


def test_warnings_as_errors_in_the_hook() -> None:
    """The fork goes on, and the interpreter reports the error on stderr."""
    done = run(errors, "hook")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '["forked", false]'
    assert "ForkHazardWarning" in done.stderr and "MyMetrics-1" in done.stderr


def broken_showwarning() -> Any:
    import warnings

    from forksafe.exceptions import ForkHazardWarning

    def showwarning(*args: object, **kwargs: object) -> None:
        raise OSError("the log is full")

    warnings.showwarning = showwarning
    # Not for Python's own: since 3.15 os.fork() raises what comes of it, and the pid is lost there.
    warnings.simplefilter("always", ForkHazardWarning)
    forks = Forks("safe_fork", "warn")
    start_thread()
    return forks()


def test_a_showwarning_that_fails_does_not_cost_the_pid() -> None:
    """It is reported as what nobody catches is."""
    done = run(broken_showwarning)
    assert done.stdout.strip() == "0", done.stderr
    assert "the log is full" in done.stderr


def in_the_child() -> Any:
    import forksafe

    start_thread()
    forksafe.install(on_hazard="warn")
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    __import__("sys").stderr.flush()  # PyPy's has a buffer
    os.close(2)
    text = b""
    while part := os.read(read, 65536):
        text += part
    return text.decode().count("forked all the same")


def test_the_parent_alone_tells() -> None:
    assert value(in_the_child) == 1


def switches() -> Any:
    import warnings

    import forksafe

    start_thread()
    told = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forks = Forks("hook", "warn")
        forksafe.install()  # some library's: it does not say, so nothing changes
        forks()
        told.append(len(ours(caught)))
        start_thread("second")
        forksafe.install(on_hazard="ignore")
        forks()
        told.append(len(ours(caught)))
        forksafe.install(on_hazard="warn")
        forks()
        told.append(len(ours(caught)))
        start_thread("third")
        forksafe.uninstall()
        forksafe.install()
        forks()
        told.append(len(ours(caught)))
    return told


def test_install_again() -> None:
    """The last word counts; without a word nothing changes; uninstall() takes all back."""
    assert value(switches) == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "call",
    [
        "forksafe.safe_fork(on_hazard='explode')",
        "forksafe.forked(on_hazard='explode')",
        "forksafe.install(on_hazard='explode')",
        "forksafe.safe_fork(on_hazard='warn', allow=['threads:x'])",
        "forksafe.install(on_hazard='warn', allow=['threads:x'])",
        "forksafe.audit(allow=['threads:x'])",
    ],
)
def test_wrong_arguments(call: str) -> None:
    """Said at the call, and before any fork."""
    import forksafe

    with pytest.raises(ValueError, match=r"explode|no kind 'threads'"):
        eval(call, {"forksafe": forksafe})
    assert not forksafe.installed()


def in_a_block() -> int:
    import socket
    import warnings

    import forksafe

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        warnings.catch_warnings(record=True) as told,
    ):
        client = socket.create_connection(server.getsockname())
        warnings.simplefilter("always", forksafe.ForkHazardWarning)
        forksafe.install(on_hazard="warn")
        with forksafe.forked():
            pass
        client.close()
    return sum(issubclass(each.category, forksafe.ForkHazardWarning) for each in told)


def test_the_hook_tells_of_the_fork_of_a_block_too() -> None:
    """``forked()`` without `on_hazard`, under ``install(on_hazard="warn")``."""
    assert value(in_a_block) == 1


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("thread:MyMetrics*", True),
        ("thread:MyMetrics", False),
        ("thread", True),
        ("thread:*", True),
        ("*:MyMetrics-1", True),
        ("socket:*", False),
        ("thread:mymetrics*", False),
        ("thread:a:b", False),
    ],
)
def test_patterns(pattern: str, matches: bool) -> None:
    from forksafe import Hazard
    from forksafe._hazard import AllowList

    hazard = Hazard("thread", "action", "x", subject="MyMetrics-1")
    assert (hazard in AllowList([pattern])) is matches
    assert (hazard in AllowList(pattern)) is matches


def test_a_pattern_with_colons() -> None:
    """The kind ends at the first colon."""
    from forksafe import Hazard
    from forksafe._hazard import AllowList

    hazard = Hazard("socket", "action", "x", subject="127.0.0.1:5432")
    assert hazard in AllowList(["socket:*:5432"])
    assert hazard not in AllowList(["socket:*:5433"])
    with pytest.raises(TypeError):
        AllowList([5432])  # type: ignore[list-item]
