"""Exactly once, in any chain of ways to fork: found by hypothesis, not thought of by us."""

from __future__ import annotations

import json

import pytest
from harness import script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHAIN = """
import json, multiprocessing, os, sys
from multiprocessing.util import register_after_fork
import forksafe

chain = json.loads(sys.argv[1])
read, write = os.pipe()
context = multiprocessing.get_context("fork")
calls = []

class Resource:
    pass

resource = Resource()
register_after_fork(resource, lambda _: calls.append(os.getpid()))

def go_on(depth):
    if depth:  # the root has not been forked
        os.write(write, json.dumps([depth, calls.count(os.getpid()), len(calls)]).encode() + b"\\n")
    if depth == len(chain):
        return
    style, switch = chain[depth]
    if switch == "install":
        forksafe.install()
    elif switch == "uninstall":
        forksafe.uninstall()
    if style == "Process":
        process = context.Process(target=go_on, args=(depth + 1,))
        process.start()
        process.join()
    elif style == "forked":
        with forksafe.forked() as fork:
            if fork.is_child:
                go_on(depth + 1)
    else:
        pid = os.fork() if style == "os.fork" else forksafe.safe_fork()
        if pid == 0:
            try:
                go_on(depth + 1)
                forksafe.after_fork_in_child()  # too late to count, and must do no harm
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

go_on(0)
os.close(write)
with os.fdopen(read) as file:
    print(json.dumps([json.loads(line) for line in file]))
"""

styles = st.sampled_from(["os.fork", "safe_fork", "forked", "Process"])
switches = st.sampled_from(["install", "uninstall", ""])


@pytest.mark.timeout(400)  # all examples together
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(styles, switches), min_size=1, max_size=5))
def test_every_process_of_a_chain_ran_each_callback_once(chain: list[tuple[str, str]]) -> None:
    """A plain os.fork() runs none while the hook is off; everything else runs each once."""
    done = script(CHAIN, argv=(json.dumps(chain),))
    assert done.returncode == 0, done
    installed = False
    expected, total = [], 0
    for depth, (style, switch) in enumerate(chain, 1):
        installed = {"install": True, "uninstall": False}.get(switch, installed)
        once = int(style != "os.fork" or installed)
        total += once
        expected.append([depth, once, total])
    assert json.loads(done.stdout) == expected
