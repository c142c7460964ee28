"""Exactly once with gevent, whose monkey patches replace ``os.fork`` by a function of its own."""

from __future__ import annotations

import os
from typing import Callable

import pytest
from harness import Forker, run
from witness import Witness, by, by_forked, by_process

pytestmark = pytest.mark.filterwarnings("ignore")


def patch() -> None:
    from gevent import monkey

    monkey.patch_all()
    assert os.fork.__module__.startswith("gevent"), os.fork


def every_way() -> None:
    import multiprocessing

    import forksafe

    witness = Witness(managers=False)
    witness.see(by(forksafe.safe_fork))
    witness.see(by_forked)
    forksafe.install()
    witness.see(by(os.fork))
    witness.see(by(forksafe.safe_fork))
    witness.see(by_forked)
    witness.see(by_process(multiprocessing))


def patched_first(fork: Forker) -> None:
    patch()
    import forksafe  # noqa: F401 - only now

    every_way()


def patched_last(fork: Forker) -> None:
    import forksafe

    forksafe.install()
    patch()
    every_way()


def replaced_and_patched(fork: Forker) -> None:
    import forksafe

    patch()
    os.fork = forksafe.safe_fork
    witness = Witness(managers=False)
    witness.see(by(os.fork))
    witness.see(by_forked)


def not_patched(fork: Forker) -> None:
    import gevent.os

    import forksafe

    forksafe.install()
    witness = Witness()
    witness.see(by(gevent.os.fork))
    witness.see(by(gevent.os.fork_gevent))
    every_way()


def managers(fork: Forker) -> None:
    import forksafe

    forksafe.install()
    witness = Witness()
    patch()
    witness.see(by(os.fork))
    witness.see(by(forksafe.safe_fork))


PROGRAMS = [patched_first, patched_last, replaced_and_patched, not_patched, managers]


@pytest.mark.parametrize("program", PROGRAMS)
def test_once_with_gevent(program: Callable[[Forker], None]) -> None:
    """Patched before forksafe is imported, after, or not at all."""
    pytest.importorskip("gevent")
    outcome = run(program, "raw")
    assert outcome.healthy, outcome
