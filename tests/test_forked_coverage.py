"""coverage.py's data of a child of `forked()`: saved where each process has a file of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import coverage
import pytest

# Not what measures this test.
ENV = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}

PROGRAM = """
import multiprocessing, os, sys
import forksafe

def in_the_child():
    return "in the child"

def in_the_parent():
    return "in the parent"

if sys.argv[1] == "forked":
    with forksafe.forked() as fork:
        if fork.is_child:
            in_the_child()
elif sys.argv[1] == "process":
    process = multiprocessing.get_context("fork").Process(target=in_the_child)
    process.start()
    process.join()
else:
    pid = os.fork()
    if pid == 0:
        in_the_child()
        os._exit(0)
    os.waitpid(pid, 0)
in_the_parent()
"""
CHILD, PARENT = (
    PROGRAM.splitlines().index(f'    return "in the {who}"') + 1 for who in ("child", "parent")
)
OWN_FILES = ["concurrency = multiprocessing", "parallel = true", "parallel = true\npatch = _exit"]


def lines(directory: Path, settings: str, how: str) -> set[int]:
    """Return the lines that coverage.py says were run."""
    program = directory / "program.py"
    program.write_text(PROGRAM)
    (directory / ".coveragerc").write_text(f"[run]\n{settings}\n")

    def run(*arguments: Any) -> None:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "coverage"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=directory,
            env=ENV,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done

    run("run", program, how)
    if settings in OWN_FILES:
        run("combine")
    run("json", "-q", f"--include={program}")
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
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import coverage, forksafe
measuring = coverage.Coverage(include={str(program)!r})
measuring.start()

def in_the_parent():
    return "in the parent"

in_the_parent()
measuring.save()
with forksafe.forked():
    pass
measuring.stop()
measuring.save()
"""
    )
    done = subprocess.run([sys.executable, program], cwd=tmp_path, check=False, env=ENV)
    assert done.returncode == 0
    data = coverage.CoverageData(tmp_path / ".coverage")
    data.read()
    assert 7 in (data.lines(str(program)) or ())
