"""What the pages say of the code, and of one another, is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forksafe._steps import STEPS

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def test_every_step_has_its_row() -> None:
    """The hazard table names each step, as `last_reset()` does."""
    rows = (ROOT / "docs" / "hazards.md").read_text(encoding="utf-8").splitlines()
    cells = [row.rstrip("| ").rpartition("|")[2] for row in rows if row.startswith("| ")]
    named = {name.strip() for cell in cells for name in cell.split(",")}
    named.add("identity")  # no hazard of the table, but below it
    assert {step.name for step in STEPS} <= named


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "docs"])
def test_links_lead_somewhere(page: str) -> None:
    """Links to other files of the project name files that are there."""
    path = ROOT / page
    for file in sorted(path.glob("*.md")) if path.is_dir() else [path]:
        for target in LINK.findall(file.read_text(encoding="utf-8")):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"
