"""A test suite for pytest-forked, whose module uses an executor before the tests are forked."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

executor = ThreadPoolExecutor(1)
importer = executor.submit(os.getpid).result()


def test_executor() -> None:
    assert os.getpid() != importer
    assert executor.submit(os.getpid).result(timeout=3) == os.getpid()
