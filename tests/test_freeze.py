"""`install(freeze=True)`: the heap is frozen once, before the first fork."""

from __future__ import annotations

import sys

import pytest
from harness import script


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy's collector has no freeze()")
def test_the_heap_is_frozen_once_before_the_first_fork() -> None:
    """After a collection; and the objects that come later are the collector's again."""
    done = script(
        """
        import forksafe, gc, os, subprocess, weakref
        class Node: pass
        node = Node(); node.self = node
        gone = weakref.ref(node)
        gc.disable()
        del node
        start = gc.get_freeze_count()  # Python 3.12 freezes a few hundred objects itself
        forksafe.install(freeze=True)
        assert gc.get_freeze_count() == start
        subprocess.run(["true"], preexec_fn=lambda: None)
        assert gc.get_freeze_count() == start, "a child about to exec shares nothing for long"
        pid = os.fork()
        if pid == 0:
            os._exit(0 if gc.get_freeze_count() > start + 1000 else 1)
        print(os.waitpid(pid, 0)[1], gone() is None, gc.get_freeze_count() > start + 1000)
        count = gc.get_freeze_count()
        later = [[] for _ in range(100)]
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert gc.get_freeze_count() <= count
        """
    )
    assert (done.stdout, done.stderr) == ("0 True True\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy's collector has no freeze()")
def test_workers_share_the_preloaded_heap() -> None:
    """After a full collection in the child, few of its pages are private; without, most are."""
    program = """
        import forksafe, gc, os, sys
        forksafe.install(freeze=sys.argv[1] == "freeze")
        heap = [{"number": [i]} for i in range(100_000)]
        read, write = os.pipe()
        def private_dirty():
            with open("/proc/self/smaps_rollup") as file:
                lines = [line.split() for line in file]
            return next(int(words[1]) for words in lines if words[0] == "Private_Dirty:")
        pid = os.fork()
        if pid == 0:
            gc.collect()
            os.write(write, str(private_dirty()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        print(os.read(read, 100).decode())
        """
    with_freeze, without = (int(script(program, argv=(how,)).stdout) for how in ("freeze", "plain"))
    assert with_freeze < without / 2, (with_freeze, without)
