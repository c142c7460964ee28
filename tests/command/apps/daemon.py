"""A daemon thread."""

from dirty import create

create(daemon=True)
