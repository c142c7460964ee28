"""An object of one's own in a manager, used before the fork; the child forks three times more.

After the second program of the same report, with the assignment before the fork that makes it fail
as well, and with an end: eight readers, each of them forked by one of the others.
"""

import os
import sys
from multiprocessing.managers import SyncManager
from threading import RLock

KEYS = 200
ROUNDS = int(sys.argv[1])
AUTHKEY = b"between us"


class Table:
    """Items behind a lock, both in the manager's process."""

    def __init__(self):
        self._items = {}
        self._lock = RLock()

    def put(self, key, value):
        with self._lock:
            self._items[key] = value

    def everything(self):
        with self._lock:
            return dict(self._items)


if __name__ == "__main__":
    SyncManager.register("table", Table)
    manager = SyncManager(authkey=AUTHKEY)
    manager.start()
    table = manager.table()
    rebuild, arguments = table.__reduce__()
    arguments[-1]["authkey"] = AUTHKEY
    for key in range(KEYS):
        table.put(key, key)

    first = os.fork()
    if first == 0:
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                children = []
            else:
                children.append(pid)
        elsewhere = SyncManager(address=manager.address, authkey=AUTHKEY)
        elsewhere.connect()
        seen = rebuild(*arguments)
        for _ in range(ROUNDS):
            items = seen.everything()
            if sorted(items) != list(range(KEYS)):
                sys.exit(f"a child read what nobody wrote: {items!r:.200}")
        for pid in children:
            if os.waitpid(pid, 0)[1] != 0:
                sys.exit("a child of the child failed")
        sys.exit(0)

    for number in range(ROUNDS * 5):
        table.put(number % KEYS, number)
    _, status = os.waitpid(first, 0)
    if status != 0:
        sys.exit(f"the child failed: wait status {status}")
    if len(table.everything()) != KEYS:
        sys.exit("items were lost")
    manager.shutdown()
