"""What the audit says of a connected client: without, and with `drop_connections`."""

from __future__ import annotations

import asyncio
import json
import os
import time

from clients import Async, make

import forksafe

client = make()
if hasattr(client, "pool") and hasattr(client.pool, "wait") and not isinstance(client, Async):
    client.pool.wait()  # it connects in the background
time.sleep(0.5)  # and what it has not handed out yet is nobody's
if isinstance(client, Async):
    client.run(asyncio.sleep(0.5))  # its pool connects in the background, and must come to an end
    if hasattr(client, "pool") and hasattr(client.pool, "wait"):
        client.run(client.pool.wait())
told = [forksafe.audit()]
pid = forksafe.safe_fork(on_hazard="raise", drop_connections=True)  # refuses none of them
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
with forksafe.forked(on_hazard="raise", drop_connections=True):
    pass
forksafe.install(drop_connections=True)
told.append(forksafe.audit())
print(json.dumps([[vars(hazard) for hazard in hazards] for hazards in told]), flush=True)
