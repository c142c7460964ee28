"""The kinds: in the code, in the list of them, and in the documentation, they are the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from harness import script

from forksafe import Hazard
from forksafe._hazard import KINDS, SEVERITIES, TEXTS
from forksafe._libraries import LIBRARIES, Library

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
# Each section: its kind, and what it says.
SECTIONS = dict(re.findall(r"^### `([\w-]+)`\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def told_in_code() -> set[str]:
    """Return the rows of the texts that some part of the audit tells."""
    keys = {library.kind for library in LIBRARIES if library.loaded}
    for path in (ROOT / "src" / "forksafe" / "_audit").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            tells = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tell"
            if tells and isinstance(node.args[0], ast.Constant):
                keys.add(node.args[0].value)
    return keys


def test_each_text_is_told_by_some_part() -> None:
    assert told_in_code() == set(TEXTS)
    assert {key.split()[0] for key in TEXTS} == set(KINDS)


def test_the_page_has_a_section_for_each_kind() -> None:
    """In the order of the list, with a severity, and a remedy where there is something to do."""
    assert list(SECTIONS) == list(KINDS)
    for kind, text in SECTIONS.items():
        severities = {name for name in SEVERITIES if re.search(rf"\*{name}\*", text, re.IGNORECASE)}
        assert severities, kind
        if "action" in severities:
            assert "**Remedy:**" in text, kind


def test_the_table_of_libraries_has_no_unknown_column() -> None:
    known = {*vars(Library), *vars(Library("a", "b"))}
    for library in LIBRARIES:
        assert vars(library).keys() <= known, library.name


def test_a_hazard_is_a_frozen_value() -> None:
    one = Hazard("thread", "action", "x", subject="a", where="m:f")
    assert one == Hazard("thread", "action", "x", subject="a", where="m:f")
    assert len({one, one}) == 1
    with pytest.raises(AttributeError):
        one.kind = "socket"  # type: ignore[misc]
    assert str(one) == "thread: x (m:f)"
    assert str(Hazard("memory", "advice", "x")) == "memory: x"


# As text: with no other file's imports.
LIGHT = """
import forksafe, sys
heavy = [name for name in ("dataclasses", "socket", "fnmatch", "inspect") if name in sys.modules]
assert not heavy, heavy
assert "audit" in dir(forksafe) and "Hazard" in forksafe.__all__
assert not hasattr(forksafe, "no_such_name")
loaded = [name for name in sys.modules if name.startswith("forksafe._audit")]
assert not loaded, loaded
from forksafe import Hazard, audit
assert isinstance(audit()[0], Hazard)
assert forksafe.audit is audit
"""


def test_importing_forksafe_does_not_load_the_audit() -> None:
    """It comes when it is asked for."""
    done = script(LIGHT)
    assert done.healthy, done
