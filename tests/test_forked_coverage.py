"""coverage.py's data of a child of `forked()`: saved where each process has a file of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import coverage
import pytest
from harness import Outcome, command, environment

PROGRAMS = Path(__file__).parent / "programs"
MEASURED, ITSELF = PROGRAMS / "measured.py", PROGRAMS / "measures_itself.py"


def line(program: Path, who: str) -> int:
    return program.read_text().splitlines().index(f'    return "in the {who}"') + 1


CHILD, PARENT = line(MEASURED, "child"), line(MEASURED, "parent")
OWN_FILES = ["concurrency = multiprocessing", "parallel = true", "parallel = true\npatch = _exit"]


def measured(*words: str | Path, cwd: Path) -> Outcome:
    """Run Python in `cwd`, without what measures this test."""
    env = {key: text for key, text in environment().items() if not key.startswith("COVERAGE_")}
    options = ("-W", "ignore::DeprecationWarning")
    return command([sys.executable, *options, *words], cwd=cwd, env=env, timeout=60)


def lines(directory: Path, settings: str, how: str) -> set[int]:
    """Return the lines that coverage.py says were run."""
    (directory / ".coveragerc").write_text(f"[run]\n{settings}\n")

    def coverage_py(*words: str | Path) -> None:
        done = measured("-m", "coverage", *words, cwd=directory)
        assert done.healthy, done

    coverage_py("run", MEASURED, how)
    if settings in OWN_FILES:
        coverage_py("combine")
    coverage_py("json", "-q", f"--include={MEASURED}")
    report = json.loads((directory / "coverage.json").read_text())
    (found,) = report["files"].values()
    return set(found["executed_lines"])


@pytest.mark.parametrize("settings", OWN_FILES)
def test_what_the_child_ran_is_measured(tmp_path: Path, settings: str) -> None:
    """With concurrency = multiprocessing as that of a Process is; with other settings, too."""
    assert {CHILD, PARENT} <= lines(tmp_path, settings, "forked")


@pytest.mark.parametrize(("how", "measured"), [("process", True), ("raw", False)])
def test_of_other_children(tmp_path: Path, how: str, measured: bool) -> None:
    """A Process is measured; what ends by ``os._exit()`` is not, unless somebody saves it."""
    found = lines(tmp_path, "concurrency = multiprocessing", how)
    assert (CHILD in found) is measured
    assert PARENT in found


def test_the_parents_data_are_not_written_over(tmp_path: Path) -> None:
    """Where there is one file for both, it is the parent's."""
    done = measured(ITSELF, cwd=tmp_path)
    assert done.healthy, done
    data = coverage.CoverageData(tmp_path / ".coverage")
    data.read()
    assert line(ITSELF, "parent") in (data.lines(str(ITSELF)) or ())
