"""Threads make connections all the time, also while the fork looks at other things.

``PORT STYLE``, of a server that keeps connections alive; tells how many children share one. What
no client of the other programs needs is not loaded: the more there is to look at, the rarer it is.
"""

import os
import sys
import threading
import time

import urllib3

import forksafe

CHILDREN = 200
pools: dict[int, urllib3.PoolManager] = {}
port, style = sys.argv[1:]
url = f"http://127.0.0.1:{port}/"


def work() -> None:
    """Make one, and leave it in the pool."""
    while True:
        pool = urllib3.PoolManager()
        pool.request("GET", url)
        pools[threading.get_ident()] = pool
        time.sleep(0.001)


def shares() -> bool:
    """Tell whether a pool has a connection that still leads to the server."""
    for pool in pools.values():
        for connection in pool.connection_from_url(url).pool.queue:
            try:
                if connection is not None and connection.sock is not None:
                    connection.sock.getpeername()
                    return True
            except OSError:
                pass
    return False


for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
while len(pools) < 3:
    time.sleep(0.01)
if style == "drop":
    forksafe.install(drop_connections=True)
shared = 0
for _ in range(CHILDREN):
    pid = os.fork()
    if pid == 0:
        os._exit(shares())
    shared += os.waitpid(pid, 0)[1] != 0
print(f"shared in {shared}", flush=True)
os._exit(0)
