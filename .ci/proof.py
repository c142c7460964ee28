"""Keep what others' tests said of forksafe in docs/proof.json, and make docs/proof.md of it.

    python .ci/proof.py     make the page anew

`.ci/cpython_tests` and `.ci/others_tests` call `record` with ``--write``.
"""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
DATA = DOCS / "proof.json"
PAGE = DOCS / "proof.md"

TEXT = """\
# Proof by others' tests

Tests that somebody else has written, for something else, know nothing of forksafe. So they are run
twice: as they are, and with `forksafe.install()` in every interpreter that they start, by a
`sitecustomize` module. A test that passes without forksafe must pass with it. What fails with it
alone is run once more, so that a test that only now and then fails is not blamed on forksafe.

## CPython's own tests

```sh
.ci/cpython_tests PYTHON                       # those that fork most, test by test
.ci/cpython_tests PYTHON --use all test_asyncio test_signal ...
```

CI runs a part of it on every change.

{cpython}

## Tests of libraries that fork

```sh
.ci/others_tests                               # all of them
.ci/others_tests --python PYTHON rq pexpect    # some
```

Each takes the library's source distribution from the package index, installs it into an environment
of its own, and runs the tests of it that have to do with processes. Libraries whose source
distribution ships no tests are not here.

{others}

*Worse* are tests that pass without forksafe, and twice do not pass with it. *Fail anyway* are those
that do not pass without it either, for reasons of their own. `--write` keeps the results of a run
here.
"""


def record(kind: str, name: str, version: str, results: dict[str, Any]) -> None:
    """Keep the results of one run, in the place of an earlier one of the same.

    Args:
        kind: ``cpython`` or ``others``.
        name: What was tested.
        version: Of what was tested.
        results: Counts: ``passed``, ``skipped``, ``failing anyway``, ``flaky``, ``worse``; and
            ``python``, the version that ran them.
    """
    kept = load()
    kept[kind][name] = {
        "version": version,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "system": platform.system(),
        **results,
    }
    kept[kind] = dict(sorted(kept[kind].items()))
    DATA.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    write()


def load() -> dict[str, dict[str, Any]]:
    """Return what was kept."""
    kept: dict[str, dict[str, Any]] = {"cpython": {}, "others": {}}
    if DATA.exists():
        kept = json.loads(DATA.read_text(encoding="utf-8"))
    return kept


def write() -> None:
    """Make the page anew."""
    kept = load()
    tables = {kind: _table(results) for kind, results in kept.items()}
    PAGE.write_text(TEXT.format(**tables), encoding="utf-8")


def _table(results: dict[str, Any]) -> str:
    if not results:
        return "Not run yet for this version."
    lines = [
        "| tests of | Python | passed with it | worse | fail anyway | skipped | run on |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        cells = [f"{name} {one['version']}".strip(), one["python"], one["passed"], one["worse"]]
        cells += [one["failing anyway"], one["skipped"], f"{one['system']}, {one['date']}"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    write()
