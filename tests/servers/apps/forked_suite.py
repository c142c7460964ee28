"""A test suite for pytest-forked, whose module makes a queue before the tests are forked."""

from __future__ import annotations

import multiprocessing
import os

queue = multiprocessing.get_context("fork").Queue()
queue.put("warm")
assert queue.get() == "warm"
importer = os.getpid()


def test_queue() -> None:
    assert os.getpid() != importer
    queue.put("in the child")
    assert queue.get(timeout=3) == "in the child"
