"""Subinterpreters: CPython crashes in the child, and the audit says so before."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import pytest
from fresh import PYPY, hazards, value

pytestmark = pytest.mark.skipif(PYPY, reason="PyPy has no subinterpreters")


def private_module() -> Any:
    try:
        import _interpreters
    except ImportError:
        import _xxsubinterpreters as _interpreters
    return _interpreters


def one_interpreter(closed: str) -> Any:
    import forksafe

    interpreters = private_module()
    made = interpreters.create()
    if closed == "closed":
        interpreters.destroy(made)
    return forksafe.audit()


def test_a_subinterpreter_needs_action() -> None:
    found = hazards(one_interpreter, "open").one("interpreter")
    assert found.severity == "action"
    assert found.subject == "1"
    assert found.where == "interpreter 1"
    assert "crashes" in found.summary
    assert "close() it before the fork" in found.remedy


def test_one_that_was_closed_is_not_told() -> None:
    assert not hazards(one_interpreter, "closed").of("interpreter")


def pool() -> Any:
    from concurrent.futures import InterpreterPoolExecutor  # type: ignore[attr-defined]

    import forksafe

    executor = InterpreterPoolExecutor(1)
    executor.submit(int).result()
    before = forksafe.audit()
    executor.shutdown()
    return [*before, "shut down", *forksafe.audit()]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor is new in 3.14")
def test_an_executor_of_interpreters() -> None:
    """Its interpreters are told, and the executor is not said to work in the child."""
    answer = value(pool)
    after = answer.index("shut down")
    assert [h["subject"] for h in answer[:after] if h["kind"] == "interpreter"] == ["1"]
    assert not [h for h in answer[:after] if h["kind"] == "executor"]
    assert not [h for h in answer[after + 1 :] if h["kind"] in ("interpreter", "executor")]


def crash(how: str) -> Any:
    import forksafe

    interpreters = private_module()
    made = interpreters.create()
    if how == "as the remedy has it":
        interpreters.destroy(made)
    pid = os.fork() if how == "os.fork" else forksafe.safe_fork()
    if pid == 0:
        os._exit(0)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


@pytest.mark.parametrize("how", ["os.fork", "safe_fork"])
def test_the_child_does_crash(how: str) -> None:
    """That it is an action is true, on every version, with forksafe and without."""
    assert value(crash, how) in ("hung", -signal.SIGABRT, -signal.SIGSEGV)


def test_the_remedy_works() -> None:
    assert value(crash, "as the remedy has it") == 0
