"""Run a program and its audit in a fresh interpreter, so that nothing of pytest's is found.

A test file holds functions that set something up and return what ``forksafe.audit()`` says, while
it is still there. `hazards` runs one of them and returns its answer here.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Callable, NamedTuple

import harness
import pytest
from harness import LINUX as LINUX
from harness import PYPY as PYPY


class Found(NamedTuple):
    """A ``Hazard``, as it came out of the other interpreter."""

    kind: str
    severity: str
    summary: str
    subject: str
    detail: str
    remedy: str
    where: str
    library: str = ""


class Answer(list[Found]):
    """What an audit said."""

    def of(self, kind: str, subject: str | None = None) -> list[Found]:
        """Return the hazards of one kind, and of one subject, if given."""
        return [h for h in self if h.kind == kind and subject in (None, h.subject)]

    def one(self, kind: str, subject: str | None = None) -> Found:
        """Return the only hazard of its kind (and subject)."""
        found = self.of(kind, subject)
        assert len(found) == 1, f"{len(found)} of kind {kind}, subject {subject}: {self}"
        return found[0]

    @property
    def actions(self) -> list[Found]:
        return [h for h in self if h.severity == "action"]

    def __str__(self) -> str:
        return "".join(f"\n  {h}" for h in self) or " nothing"


def run(program: Callable[..., Any], *args: str, timeout: float = 60.0) -> harness.Outcome:
    """Run a module-level function of a test file in a fresh interpreter."""
    env = {"OPENBLAS_NUM_THREADS": "2"}
    return harness.run(program, "", *args, timeout=timeout, env=env, lives_on=True)


def value(program: Callable[..., Any], *args: str, timeout: float = 60.0) -> Any:
    """Return what `program` returns in its fresh interpreter, by way of JSON."""
    return run(program, *args, timeout=timeout).value


def hazards(program: Callable[..., Any], *args: str) -> Answer:
    """Return the hazards that `program` returns in its fresh interpreter."""
    return Answer(Found(**fields) for fields in value(program, *args))


def needs(module: str, install: str) -> pytest.MarkDecorator:
    """Skip where a library is absent, saying how to get it."""
    absent = find_spec(module.partition(".")[0]) is None
    return pytest.mark.skipif(absent, reason=f"no {module}: pip install {install}")
