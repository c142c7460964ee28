"""In the place of the demo's program: it ends as its argument says."""

import os
import signal
import sys
import time


def tell(side: str, outcome: str = "ok") -> None:
    print(f"\n{side} 7 {outcome}", flush=True)


def well() -> None:
    tell("parent")
    tell("child")


def with_wrong_answers() -> None:
    tell("parent", "got the other process's answer")
    tell("child", "got the other process's answer")


def with_a_child_that_hangs() -> None:
    tell("parent")
    tell("child", "hung for 3 s")


def with_a_child_that_dies() -> None:
    tell("parent")


def never_for_the_child() -> None:
    tell("parent")
    time.sleep(60)


def never() -> None:
    well()
    time.sleep(60)


def with_a_status() -> None:
    well()
    print("what happened", file=sys.stderr)
    sys.exit(3)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fails_if_forked() -> None:
    with_a_status() if sys.argv[1] == "forked" else well()


vars().get(sys.argv[1], fails_if_forked)()
