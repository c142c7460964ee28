"""Every Python example in README.md and docs/ runs, as it stands there.

Each ```` ```python ```` block is a program of its own, run by a fresh interpreter in an empty
directory; it must end well. A comment right above a block, which no reader of the page sees, says
what is different about it:

- ``<!-- goes on -->``: it follows on the block before, and is run after it, in one program;
- ``<!-- needs: sqlalchemy, redis -->``: it is skipped where these cannot be imported;
- ``<!-- not run: REASON -->``: only its syntax is checked.

A ```` ```text ```` block under ``<!-- prints -->`` is what the block before it prints.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]

BLOCK = re.compile(
    r"^(?:<!-- *(?P<note>[^\n]*?) *-->\n+)?^```(?P<language>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Example:
    """One program of the documentation."""

    name: str
    source: str
    needs: list[str] = field(default_factory=list)
    run: bool = True
    prints: str | None = None


def examples(page: Path) -> list[Example]:
    """Return the programs of a page."""
    found: list[Example] = []
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("body"))
        key, _, value = (match["note"] or "").partition(":")
        where = f"{page.relative_to(ROOT)}:{line}"
        if match["language"] == "python":
            if key == "goes on":
                found[-1].source += "\n" + match["body"]
                continue
            # As many lines as the page has above it, so that a traceback names the page's line.
            example = Example(where, "\n" * line + match["body"])
            if key == "needs":
                example.needs = [name.strip() for name in value.split(",")]
            elif key == "not run":
                assert value.strip(), f"{where} does not say why it is not run"
                example.run = False
            else:
                assert not key, f"{where}: unknown note {match['note']!r}"
            found.append(example)
        elif key == "prints":
            found[-1].prints = match["body"]
    return found


EXAMPLES = [example for page in PAGES for example in examples(page)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_runs(example: Example, tmp_path: Path) -> None:
    """It ends well, and prints what the page says."""
    compile(example.source, example.name, "exec")
    if not example.run:
        return
    for module in example.needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install '.[servers]'")
    program = tmp_path / "program.py"
    program.write_text(example.source, encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", program.name],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    if example.prints is not None:
        assert finished.stdout == example.prints
    else:
        assert not finished.stderr, finished.stderr


def test_there_are_examples() -> None:
    """The pattern finds the blocks: as many as the pages have."""
    written = sum(page.read_text(encoding="utf-8").count("```python") for page in PAGES)
    continued = sum(page.read_text(encoding="utf-8").count("<!-- goes on -->") for page in PAGES)
    assert len(EXAMPLES) == written - continued > 5
