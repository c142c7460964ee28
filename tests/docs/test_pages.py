"""What the pages say of the code, and of one another, is there."""

from __future__ import annotations

import re
import subprocess
import sys
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
    named |= {"identity", "connections"}  # no hazards of the table, but below it
    assert {step.name for step in STEPS} <= named


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "docs"])
def test_links_lead_somewhere(page: str) -> None:
    """Links to other files of the project name files that are there."""
    path = ROOT / page
    for file in sorted(path.glob("*.md")) if path.is_dir() else [path]:
        for target in LINK.findall(file.read_text(encoding="utf-8")):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"


def test_what_process_mends() -> None:
    """README counts the rows of the hazard table that multiprocessing.Process repairs by itself."""
    lines = (ROOT / "docs" / "hazards.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:2] == "| "]
    rows = [row for row in rows if row[0].isdigit()]
    mended = sum(1 for row in rows if row[3] == "✓")
    said = f"it repairs {mended} of the {len(rows)} by itself"
    assert said in (ROOT / "README.md").read_text(encoding="utf-8"), said


def test_pictures_are_what_their_program_draws() -> None:
    """Nobody has mended them by hand; and each is used."""
    sys.path.append(str(ROOT / "docs" / "drawing"))
    import draw

    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    texts = "".join(page.read_text(encoding="utf-8") for page in pages)
    pictures = ROOT / "docs" / "pictures"
    for name, drawn in draw.pictures().items():
        assert (pictures / name).read_text(encoding="utf-8") == drawn, name
    for file in pictures.iterdir():
        assert file.name in texts, f"no page shows {file.name}"


def test_the_demo_prints_what_readme_shows() -> None:
    """But for the row of os.fork(), which differs from run to run."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- the demo prints -->\n```text\n")[2].partition("```")[0]
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "forksafe", "demo"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    for line in shown.splitlines():
        assert line.startswith("os.fork ") or line in done.stdout.splitlines(), done.stdout
