"""A child in a terminal of its own, by ``pty.fork()``, that uses its parent's dict and lock."""

import os
import pty
import sys
from multiprocessing.managers import SyncManager

ROUNDS = int(sys.argv[1])


def count(counts, lock):
    for _ in range(ROUNDS):
        with lock:
            counts["total"] = counts["total"] + 1


def read_all(fd):
    data = b""
    while True:
        try:
            part = os.read(fd, 1024)
        except OSError:  # Linux: the terminal's last user is gone
            part = b""
        if not part:
            return data.decode()
        data += part


if __name__ == "__main__":
    manager = SyncManager()
    manager.start()
    counts, lock = manager.dict(total=0), manager.Lock()
    with lock:
        counts["total"] = 0

    pid, terminal = pty.fork()
    if pid == 0:
        count(counts, lock)
        print("child on a terminal:", os.isatty(1), "done")
        sys.exit(0)

    count(counts, lock)
    told = read_all(terminal)
    _, status = os.waitpid(pid, 0)
    if status != 0 or "child on a terminal: True done" not in told:
        sys.exit(f"the child failed: {told}")
    if counts["total"] != 2 * ROUNDS:
        sys.exit("miscounted: {}".format(counts["total"]))
    manager.shutdown()
