"""`install(freeze=True)`: the heap is frozen once, before the first fork."""

from __future__ import annotations

import gc
import os

import pytest
from harness import LINUX, PYPY, run

pytestmark = pytest.mark.skipif(PYPY, reason="PyPy's collector has no freeze()")


class Node:
    """Garbage, with a cycle."""

    def __init__(self) -> None:
        self.me = self


def once() -> dict[str, object]:
    import subprocess
    import weakref

    import forksafe

    def frozen() -> bool:
        return gc.get_freeze_count() > start + 1000

    gone = weakref.ref(Node())
    gc.disable()
    assert gone() is not None
    start = gc.get_freeze_count()  # Python 3.12 freezes a few hundred objects itself
    forksafe.install(freeze=True)
    assert gc.get_freeze_count() == start
    subprocess.run(["true"], preexec_fn=lambda: None)
    assert gc.get_freeze_count() == start, "a child about to exec shares nothing for long"
    pid = os.fork()
    if pid == 0:
        os._exit(0 if frozen() else 1)
    told = {"child": os.waitpid(pid, 0)[1], "collected": gone() is None, "frozen": frozen()}
    count = gc.get_freeze_count()
    later = [[number] for number in range(100)]
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert later
    return {**told, "later": gc.get_freeze_count() - count}


def test_the_heap_is_frozen_once_before_the_first_fork() -> None:
    """After a collection; and the objects that come later are the collector's again."""
    told = run(once, "").value
    assert told.pop("later") <= 0
    assert told == {"child": 0, "collected": True, "frozen": True}


def private_memory(how: str) -> int:
    """Return the KiB that are a child's own after a full collection in it."""
    import forksafe

    forksafe.install(freeze=how == "freeze")
    heap = [{"number": [number]} for number in range(100_000)]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        gc.collect()
        with open("/proc/self/smaps_rollup") as file:
            lines = [line.split() for line in file]
        private = next(int(words[1]) for words in lines if words[0] == "Private_Dirty:")
        os.write(write, str(private).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert heap
    return int(os.read(read, 100))


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_workers_share_the_preloaded_heap() -> None:
    """After a full collection in the child, few of its pages are private; without, most are."""
    with_freeze, without = (run(private_memory, "", how).value for how in ("freeze", "plain"))
    assert with_freeze < without / 2, (with_freeze, without)
