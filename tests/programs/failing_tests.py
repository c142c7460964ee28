"""Tests that fail in a child of `forked()`: test_child_failed.py reads what pytest says of them."""

from __future__ import annotations

import pytest

import forksafe


def test_fails() -> None:
    with forksafe.forked() as fork:
        if fork.is_child:
            raise LookupError("no such user")


def test_waits_badly() -> None:
    with forksafe.forked() as fork:
        if fork.is_parent:
            fork.wait("long")  # type: ignore[arg-type] # it is wrong


def test_skips() -> None:
    with forksafe.forked() as fork:
        if fork.is_child:
            pytest.skip("no network")


def test_does_not_expect() -> None:
    with forksafe.forked() as fork:
        if fork.is_child:
            pytest.xfail("not yet")


def test_gives_up() -> None:
    with forksafe.forked() as fork:
        if fork.is_child:
            pytest.fail("no use")
