"""A thread whose name would be a pattern."""

from dirty import create

create("worker[1]", daemon=True)
