"""The command ``forksafe``, on top of the package: nothing else in forksafe imports it."""

from __future__ import annotations

from ._parser import main as main
