"""What the audit says of a client that is connected: before, and where children drop connections."""

from __future__ import annotations

import json

from clients import make

import forksafe
from forksafe._audit import _policy

client = make()
told = [forksafe.audit()]
_policy.before("raise", (), drops=True)  # as safe_fork(on_hazard="raise", drop_connections=True)
forksafe.install(drop_connections=True)
told.append(forksafe.audit())
print(json.dumps([[vars(hazard) for hazard in hazards] for hazards in told]), flush=True)
