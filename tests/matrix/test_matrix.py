"""The page of the matrix is what its data make, and what this Python shows again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SAMPLE = (1, 6, 14)  # one of multiprocessing, one of its exit, one of threads


def test_the_page_is_made_of_the_data() -> None:
    """Nobody has mended it by hand."""
    program = "import page; assert page.text(page.load()) == page.PAGE.read_text(), 'not the same'"
    subprocess.run([sys.executable, "-c", program], cwd=HERE, check=True)


def test_a_sample_agrees_with_the_page() -> None:
    """On this Python, if the page has it; forksafe's own ways must work in any case."""
    command = [sys.executable, str(HERE / "run.py"), "--check"]
    for row in SAMPLE:
        command += ["--row", str(row)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_each_row_of_the_hazard_table_is_a_row_here() -> None:
    """By the same number; and a file is named for each, whether or not it is there."""
    program = "import rows; print(*[row.number for row in rows.ROWS])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True)
    table = (HERE.parents[1] / "docs" / "hazards.md").read_text(encoding="utf-8")
    numbers = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert done.stdout.split() == [number for number in numbers if number.isdigit()]
