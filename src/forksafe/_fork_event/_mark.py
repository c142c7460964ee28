"""A mark of this process: another object after every reset.

What a step leaves for later, to be done when an inherited object is first used, it can so tell
from what this process has made itself. A pid would not do: pids recur.
"""

from __future__ import annotations

# Replaced by every reset.
mark: object = object()
