"""A program that measures itself, in the directory where it runs, and forks meanwhile."""

from __future__ import annotations

import coverage

import forksafe


def in_the_parent() -> str:
    return "in the parent"


measuring = coverage.Coverage(include=__file__)
measuring.start()
in_the_parent()
measuring.save()
with forksafe.forked():
    pass
measuring.stop()
measuring.save()
