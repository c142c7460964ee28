"""Run a program and its audit in a fresh interpreter, so that nothing of pytest's is found.

A test file holds functions that set something up and return what ``forksafe.audit()`` says, while
it is still there. `hazards` runs one of them and returns its answer here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest

PYPY = sys.implementation.name == "pypy"
LINUX = sys.platform.startswith("linux")


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


def run(
    program: Callable[..., Any], *args: str, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a module-level function of a test file in a fresh interpreter."""
    path = Path(program.__code__.co_filename)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", __file__]
    return subprocess.run(
        [*command, str(path), program.__name__, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
    )


def value(program: Callable[..., Any], *args: str, timeout: float = 60.0) -> Any:
    """Return what `program` returns in its fresh interpreter, by way of JSON."""
    done = run(program, *args, timeout=timeout)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


def hazards(program: Callable[..., Any], *args: str) -> Answer:
    """Return the hazards that `program` returns in its fresh interpreter."""
    return Answer(Found(**fields) for fields in value(program, *args))


def needs(module: str, install: str) -> pytest.MarkDecorator:
    """Skip where a library is absent, saying how to get it."""
    try:
        absent = importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # of its package
        absent = True
    return pytest.mark.skipif(absent, reason=f"no {module}: pip install {install}")


def main() -> None:
    path, function, *args = sys.argv[1:]
    sys.argv = [path]
    sys.path.insert(0, os.path.dirname(__file__))
    namespace: dict[str, Any] = {"__name__": "program", "__file__": path}
    exec(compile(Path(path).read_text(), path, "exec"), namespace)
    answer = namespace[function](*args)
    hazard = sys.modules.get("forksafe._hazard")
    if hazard is not None and isinstance(answer, list):
        answer = [vars(h) if isinstance(h, hazard.Hazard) else h for h in answer]
    print(json.dumps(answer), flush=True)
    os._exit(0)  # what the program left behind is not waited for


if __name__ == "__main__":
    main()
