"""The symptoms are what programs show: the very words, without forksafe; and with it they go well.

Most are the programs of tests/hazards, so that a heading of docs/symptoms.md whose words Python has
changed is noticed here.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import NEW_TRACKER, NOT_RUN, command

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "symptoms.md"
HANGS = "(it hangs)"
MIXED = "|".join(
    (
        r"invalid load key|pickle data was truncated|unpickling stack underflow|EOFError",
        r"Broken: the child hung|AssertionError: a reply to the other",
        r"object of type 'NoneType' has no len\(\)|'NoneType' object is not iterable",
        re.escape(HANGS),
    )
)


class Symptom(NamedTuple):
    """Words of a heading, and the program that shows them."""

    heading: str
    file: str
    program: str = "program"
    shows: str = re.escape(HANGS)  # a pattern
    mended: bool = True
    only: bool = True  # on this Python


SYMPTOMS = [
    Symptom("can only join a child process", "test_06_*", shows="can only join a child process"),
    # What is seen of it differs from run to run; `forksafe demo` shows these most often.
    Symptom("invalid load key", "test_01_*", shows=MIXED),
    Symptom("Ran out of input", "test_01_*", shows=MIXED),
    Symptom(
        "This process is multi-threaded, use of fork()",
        "symptom_programs",
        "threads",
        r"is multi-threaded, use of fork\(\) may lead to deadlocks in the child",
        only=sys.version_info >= (3, 12) and sys.implementation.name == "cpython",
    ),
    Symptom(
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "symptom_programs",
        "tls",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        mended=False,  # but for the libraries of drop_connections
    ),
    Symptom("BrokenProcessPool", "symptom_programs", "inherited_pool"),
    Symptom("executor.submit()", "test_11_thread*"),
    Symptom("A child hangs in logging", "test_20_*", "text_stream"),
    Symptom("A child hangs in `queue.get()`", "test_22_*", "queue_of_items", "not woken"),
    Symptom("A daemon process dies", "test_06_*", shows="ended its parent's daemon"),
    Symptom(
        "Everything is printed twice",
        "test_14_*",
        "program_once",
        "bytes before child bytes before",
    ),
    Symptom(
        "a temporary directory has gone", "test_17_*", "program_survives", "the child deleted it"
    ),
    Symptom("No such file or directory: '/psm_", "test_07_*", shows="leaked", only=NEW_TRACKER),
    Symptom("No child processes", "test_09_*", shows="No child processes"),
]


def run(symptom: Symptom, style: str) -> str:
    """Run a symptom's program; return what it printed, and that it hung."""
    places = (TESTS / "hazards", TESTS / "docs")
    found = [path for place in places for path in sorted(place.glob(symptom.file + ".py"))]
    assert found, f"there is no {symptom.file}.py"
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    environ["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS / "docs")])
    words = [sys.executable, "-W", "ignore::DeprecationWarning", str(TESTS / "matrix" / "one.py")]
    words += [str(found[0]), symptom.program, style]
    done = command(words, env=environ, merged=True, timeout=110, idle=3.0)
    status = done.returncode
    assert status != NOT_RUN, done
    # The source lines of a traceback hold the messages of assertions that did not fail.
    output = "\n".join(line for line in done.stdout.splitlines() if not line.startswith(" "))
    return output + ("" if status == 0 else HANGS if status is None else f"\n{status}")


@pytest.mark.parametrize(
    "symptom", [one for one in SYMPTOMS if one.only], ids=lambda symptom: symptom.heading
)
def test_it_is_shown_without_forksafe(symptom: Symptom) -> None:
    """In these words; but for Pythons that do not have it."""
    output = run(symptom, "raw")
    assert re.search(symptom.shows, output), output


@pytest.mark.parametrize(
    "symptom", [one for one in SYMPTOMS if one.mended], ids=lambda symptom: symptom.heading
)
def test_it_is_gone_with_forksafe(symptom: Symptom) -> None:
    """Or, for a process pool, told at once."""
    output = run(symptom, "hook")
    assert HANGS not in output, output
    if symptom.program == "inherited_pool":
        assert "the child: BrokenProcessPool: " in output
    elif symptom.program != "threads":  # the warning remains, and says nothing of the child
        assert not re.search(symptom.shows, output), output


def test_the_headings_are_there() -> None:
    """The words are those of a heading, where who searches finds them."""
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for symptom in SYMPTOMS:
        assert any(symptom.heading in heading for heading in headings), symptom.heading


@pytest.mark.parametrize(
    "word",
    [
        *("django", "flask", "fastapi", "celery", "sentry", "opentelemetry", "apscheduler"),
        *("deadlock", "hang", "psycopg", "sqlalchemy", "redis", "worker timeout", "pre-commit"),
        *("bad record mac", "eof detected", "coverage", "github actions", "uvicorn", "numpy"),
    ],
)
def test_a_search_finds_it(word: str) -> None:
    """The site's search knows the words of its pages, so one of them must have it."""
    pages = [path.read_text(encoding="utf-8").lower() for path in PAGE.parent.glob("*.md")]
    assert any(word in page for page in pages)
