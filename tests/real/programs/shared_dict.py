"""A dict in a manager, filled before the fork, then written by the parent and read by the child.

After the first program of https://github.com/python/cpython/issues/101320, with an end: the child
takes the proxy apart before the fork, connects by itself and builds it again.
"""

import os
import sys
from multiprocessing.managers import SyncManager

KEYS = 200
ROUNDS = int(sys.argv[1])
AUTHKEY = b"between us"

if __name__ == "__main__":
    manager = SyncManager(authkey=AUTHKEY)
    manager.start()
    numbers = manager.dict()
    rebuild, arguments = numbers.__reduce__()
    arguments[-1]["authkey"] = AUTHKEY
    for key in range(KEYS):
        numbers[key] = key

    pid = os.fork()
    if pid == 0:
        elsewhere = SyncManager(address=manager.address, authkey=AUTHKEY)
        elsewhere.connect()
        seen = rebuild(*arguments)
        for _ in range(ROUNDS):
            values = seen.values()
            if len(values) != KEYS or not all(type(value) is int for value in values):
                sys.exit(f"the child read what nobody wrote: {values!r:.200}")
        sys.exit(0)

    for number in range(ROUNDS * 5):
        numbers[number % KEYS] = number
        if numbers[number % KEYS] != number:
            sys.exit("the parent reads something else than it wrote")
    _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit(f"the child failed: wait status {status}")
    if len(numbers) != KEYS:
        sys.exit("items were lost")
    manager.shutdown()
