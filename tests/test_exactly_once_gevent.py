"""Exactly once with gevent, whose monkey patches replace ``os.fork`` by a function of its own."""

from __future__ import annotations

import os
from typing import Callable

import pytest
from harness import Forker, run
from witness import Witness, by


def patch() -> None:
    from gevent import monkey

    monkey.patch_all()
    assert os.fork.__module__.startswith("gevent"), os.fork


def replaced_and_patched(fork: Forker) -> None:
    import forksafe

    patch()
    os.fork = forksafe.safe_fork
    # No managers, and os._exit(): with plain os.fork, too, a gevent child may hang at its exit.
    Witness(managers=False).see(by(os.fork, os._exit))


def not_patched(fork: Forker) -> None:
    import gevent.os

    import forksafe

    forksafe.install()
    witness = Witness()
    witness.see(by(gevent.os.fork))
    witness.see(by(gevent.os.fork_gevent))


PROGRAMS = [replaced_and_patched, not_patched]


@pytest.mark.parametrize("program", PROGRAMS)
def test_once_with_gevent(program: Callable[[Forker], None]) -> None:
    """Patched, or not: with the functions of ``gevent.os``."""
    pytest.importorskip("gevent")
    outcome = run(program, "raw", timeout=60)
    assert outcome.healthy, outcome
