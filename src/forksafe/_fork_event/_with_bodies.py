"""Placeholder until the analysis lands."""

from __future__ import annotations

from typing import Any


class Held:
    lock: Any
    sure: bool
    where: str
    of_standard_library: bool
