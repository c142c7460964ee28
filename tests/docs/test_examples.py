"""Every Python example in README.md and docs/ runs, as it stands there.

Each ```` ```python ```` block is a program of its own, run by a fresh interpreter in an empty
directory; it must end well. A comment right above a block, which no reader of the page sees, says
what is different about it:

- ``<!-- goes on -->``: it follows on the block before, and is run after it, in one program;
- ``<!-- needs: sqlalchemy, redis -->``: it is skipped where these cannot be imported;
- ``<!-- pytest -->``: it is a file of tests, which pass;
- ``<!-- not run: REASON -->``: only its syntax is checked;
- ``<!-- file: NAME -->``: a file of the tutorial, which `test_tutorial.py` runs as a whole.

A ```` ```text ```` block under ``<!-- prints -->`` is what the block before it prints.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import python

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
    tests: bool = False
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
            elif key == "pytest":
                example.tests = True
            elif key in ("not run", "file"):
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
    options = ["-m", "pytest", "-p", "no:cacheprovider"] if example.tests else []
    limits: dict[str, Any] = {"timeout": 110.0, "idle": 3.0, "lives_on": True}
    done = python(*options, program.name, cwd=tmp_path, merged=True, **limits)
    assert done.healthy, done
    if not example.tests:
        assert done.stdout == (example.prints or "")


def test_there_are_examples() -> None:
    """The pattern finds the blocks: as many as the pages have."""
    written = sum(page.read_text(encoding="utf-8").count("```python") for page in PAGES)
    continued = sum(page.read_text(encoding="utf-8").count("<!-- goes on -->") for page in PAGES)
    assert len(EXAMPLES) == written - continued > 5
