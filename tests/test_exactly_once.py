"""Each after-fork callback runs exactly once per fork, whatever is combined with whatever.

Twice is no harmless repetition: a manager's proxy takes a reference in its callback, and a second
run leaks one there for every child. So besides counting, `Witness` asks real managers.
"""

from __future__ import annotations

import os
from typing import Any, Callable

import pytest
from harness import Forker, run, run_plain
from witness import FAMILIES, Witness, by, by_forked, by_process, within

import forksafe

Program = Callable[[Forker], None]
PROGRAMS: list[Program] = []
PROCESS_PROGRAMS: list[Program] = []


def combination(program: Program) -> Program:
    """Run `program` as a test."""
    PROGRAMS.append(program)
    return program


def process_combination(program: Program) -> Program:
    """Run `program` as a test for each family's ``Process``: of ``fork.package``."""
    PROCESS_PROGRAMS.append(program)
    return program


@combination
def safe_fork_alone(fork: Forker) -> None:
    Witness().see(by(forksafe.safe_fork))


@combination
def forked_alone(fork: Forker) -> None:
    Witness().see(by_forked)


@combination
def install_alone(fork: Forker) -> None:
    forksafe.install()
    Witness().see(by(os.fork))


@combination
def install_twice(fork: Forker) -> None:
    forksafe.install()
    forksafe.install()
    Witness().see(by(os.fork))


@combination
def install_and_safe_fork(fork: Forker) -> None:
    forksafe.install()
    Witness().see(by(forksafe.safe_fork))


@combination
def install_and_forked(fork: Forker) -> None:
    forksafe.install()
    Witness().see(by_forked)


@combination
def os_fork_replaced(fork: Forker) -> None:
    os.fork = forksafe.safe_fork
    witness = Witness()
    witness.see(by(os.fork))
    witness.see(by(forksafe.safe_fork))
    witness.see(by_forked)


@combination
def os_fork_replaced_and_install(fork: Forker) -> None:
    os.fork = forksafe.safe_fork
    install_and_safe_fork(fork)


@combination
def install_and_after_fork_in_child(fork: Forker) -> None:
    forksafe.install()

    def start(target: Callable[[], object]) -> None:
        def child() -> None:
            forksafe.after_fork_in_child()
            forksafe.after_fork_in_child()
            target()

        by(os.fork)(child)

    Witness().see(start)


@combination
def wrapper_around_os_fork(fork: Forker) -> None:
    forksafe.install()
    real_fork = os.fork
    os.fork = lambda: real_fork()
    witness = Witness()
    witness.see(by(os.fork))
    witness.see(by(forksafe.safe_fork))
    witness.see(by_forked)
    forksafe.uninstall()
    witness.see(by(forksafe.safe_fork))
    witness.see(by_forked)


@combination
def wrapper_around_safe_fork(fork: Forker) -> None:
    os.fork = lambda: forksafe.safe_fork()
    witness = Witness()
    witness.see(by(os.fork))
    witness.see(by(forksafe.safe_fork))
    forksafe.install()
    witness.see(by(os.fork))
    witness.see(by_forked)


@combination
def forks_of_forks(fork: Forker) -> None:
    forksafe.install()
    witness = Witness()
    twice = within(by(os.fork), by(forksafe.safe_fork))
    witness.see(twice, depth=2)
    witness.see(within(twice, twice), depth=4, times=2)
    witness.see(within(by_forked, by_forked), depth=2)


@combination
def forks_of_forks_by_safe_fork_alone(fork: Forker) -> None:
    witness = Witness()
    twice = within(by(forksafe.safe_fork), by(forksafe.safe_fork))
    witness.see(within(twice, by_forked), depth=3)


@process_combination
def install_and_process(fork: Forker) -> None:
    forksafe.install()
    Witness().see(by_process(fork.package))


@process_combination
def os_fork_replaced_and_process(fork: Forker) -> None:
    os.fork = forksafe.safe_fork
    Witness().see(by_process(fork.package))


@process_combination
def wrapper_around_os_fork_and_process(fork: Forker) -> None:
    forksafe.install()
    real_fork = os.fork
    os.fork = lambda: real_fork()
    Witness().see(by_process(fork.package))


@process_combination
def process_child_that_forks(fork: Forker) -> None:
    forksafe.install()
    witness = Witness()
    process = by_process(fork.package)
    witness.see(within(process, by(os.fork)), depth=2)
    witness.see(within(process, by(forksafe.safe_fork)), depth=2)
    witness.see(within(process, by_forked), depth=2)
    witness.see(within(process, process), depth=2)


@process_combination
def process_in_a_forked_child(fork: Forker) -> None:
    forksafe.install()
    witness = Witness()
    process = by_process(fork.package)
    witness.see(within(by(os.fork), process), depth=2)
    witness.see(within(by_forked, process), depth=2)
    witness.see(within(within(process, by_forked), process), depth=3, times=2)


@process_combination
def process_subclass_with_a_run_of_its_own(fork: Forker) -> None:
    forksafe.install()

    class Worker(fork.package.get_context("fork").Process):  # type: ignore[misc] # made here
        def run(self) -> None:
            self._target()

    witness = Witness()
    witness.see(by_process(fork.package, Worker))
    witness.see(within(by_process(fork.package, Worker), by(os.fork)), depth=2)


@process_combination
def process_started_by_a_thread(fork: Forker) -> None:
    import threading

    forksafe.install()

    def start(target: Callable[[], object]) -> None:
        failed: list[BaseException] = []

        def body() -> None:
            try:
                by_process(fork.package)(target)
            except BaseException as exc:
                failed.append(exc)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        assert not failed, failed

    Witness().see(start)


@process_combination
def fork_at_the_end_of_a_process(fork: Forker) -> None:
    """From what a Process runs at its end; with 3.13 that is an atexit handler."""
    forksafe.install()
    process = by_process(fork.package)
    util = fork.module("util")
    witness = Witness()

    def at_end_of(inner: Any) -> Any:
        def start(target: Callable[[], object]) -> None:
            process(lambda: util.Finalize(None, inner, args=(target,), exitpriority=1000))

        return start

    witness.see(at_end_of(by_forked), depth=2)

    def by_os_fork(target: Callable[[], object]) -> None:
        def child() -> None:
            target()
            end_here()

        by(os.fork)(child)

    witness.see(at_end_of(by_os_fork), depth=2)


def end_here() -> None:
    """End a child that stands amid its parent's exit handlers: its own finalizers, and no more."""
    import sys

    for name in FAMILIES:
        sys.modules[f"{name}.util"]._run_finalizers()
    os._exit(0)


@pytest.mark.parametrize("program", PROGRAMS)
def test_once(program: Program) -> None:
    """Each callback ran once, in order; the managers count as before when the children ended."""
    outcome = run(program, "raw")
    assert outcome.healthy, outcome


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("program", PROCESS_PROGRAMS)
def test_once_with_a_process(program: Program, family: str) -> None:
    """Also where a ``Process``, which runs one registry by itself, is in it."""
    outcome = run(program, f"raw:{family}")
    assert outcome.healthy, outcome


def not_at_all(fork: Forker) -> None:
    Witness().see(by(os.fork))


def test_without_forksafe_they_do_not_run() -> None:
    """The witness sees it where a fork runs no callbacks."""
    outcome = run_plain(not_at_all, "raw")
    assert outcome.shows("of multiprocessing ran: []"), outcome
