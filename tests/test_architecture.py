"""The shape of the package: arrows one way, few files, and an import that drags in nothing.

The imports are read from the source, so that those of type checkers and those inside functions
count too: what is imported in a function is a dependency all the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness import script

import forksafe

ROOT = Path(forksafe.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

TOP_LEVEL = {
    *("__init__.py", "__main__.py", "exceptions.py", "gunicorn.py", "uwsgi.py", "py.typed"),
    *("_safe_fork.py", "_hook.py", "_reset.py", "_hazard.py"),
    *("_fork_event", "_steps", "_block", "_audit", "_libraries", "_command"),
}

# Each part, a file or a folder of the top level, and what it may import: those above it.
LAYERS = [
    *("_hazard", "exceptions", "_fork_event", "_libraries", "_steps"),
    *("_reset", "_hook", "_safe_fork", "_block", "__init__"),
]
MAY_IMPORT = {part: set(LAYERS[:number]) for number, part in enumerate(LAYERS)}
MAY_IMPORT["_audit"] = {"_hazard", "exceptions", "_fork_event", "_libraries", "_steps"}
MAY_IMPORT["gunicorn"] = MAY_IMPORT["uwsgi"] = set(LAYERS)
MAY_IMPORT["_command"] = {*LAYERS, "_audit"}
MAY_IMPORT["__main__"] = {"_command"}
# The audit is for who asks for it: these import it inside a function, or for type checkers.
MAY_ASK = {"_hook", "_safe_fork", "_block", "__init__", "gunicorn"}

FEW_FILES = 55
FEW_LINES = 6500


class Import(NamedTuple):
    """One import statement's arrow from file to file, both named as in ``_steps._mp``."""

    file: str
    imported: str
    lazily: bool

    def __str__(self) -> str:
        return f"{self.file} -> {self.imported}"


def name_of(path: Path) -> str:
    """Return a file's name within the package; a folder's own file is named as the folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {name_of(path) for path in FILES}


def imports(path: Path) -> Iterator[Import]:
    """Return what a file imports of this package."""
    file = name_of(path)
    package = path.relative_to(ROOT).parts[:-1]
    tree = ast.parse(path.read_text())
    eager = {id(node) for node in at_load(tree)}
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("forksafe")]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(["forksafe", *package[: len(package) - node.level + 1]])
            module = f"{base}.{node.module}" if node.module else base
            found += [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("forksafe"):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        for name in found:
            yield Import(file, a_file(name), id(node) not in eager)


def a_file(name: str) -> str:
    """Return the file that holds `name`, which may be one of the things in it."""
    name = name.partition("forksafe")[2].lstrip(".")
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name or "__init__"


def at_load(node: ast.AST) -> Iterator[ast.AST]:
    """Return the nodes that run when the file is loaded, but for those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from at_load(child)


IMPORTS = sorted({found for path in FILES for found in imports(path)})


def part(file: str) -> str:
    return file.partition(".")[0]


def test_every_import_is_understood() -> None:
    """Or the tests below would pass because they see nothing."""
    assert len({found.file for found in IMPORTS}) > len(FILES) / 2
    assert Import("_hook", "_reset", True) in IMPORTS or Import("_hook", "_reset", False) in IMPORTS
    assert any(found.file == "_steps" and found.imported.startswith("_steps.") for found in IMPORTS)


def test_arrows_point_one_way() -> None:
    """From what users call down to the steps, and from the audit to the steps' finders."""
    wrong = [
        str(found)
        for found in IMPORTS
        if part(found.file) != part(found.imported)
        and part(found.imported) not in MAY_IMPORT[part(found.file)]
        and not (part(found.imported) == "_audit" and part(found.file) in MAY_ASK and found.lazily)
    ]
    assert wrong == []


def test_no_circle() -> None:
    """Neither between files nor between a folder's files, types included."""
    below = {name: {f.imported for f in IMPORTS if f.file == name} - {name} for name in NAMES}
    # The package's own file gives names that are loaded when they are asked for.
    below["__init__"] = set()
    while ends := {
        name for name in below if not below[name] or name not in set().union(*below.values())
    }:
        below = {name: imported - ends for name, imported in below.items() if name not in ends}
    assert below == {}, "files that lie on circles, or between two"


def test_the_top_level_is_the_path_of_a_fork() -> None:
    """A new file goes into a folder."""
    found = {path.name for path in ROOT.iterdir() if path.name != "__pycache__"}
    assert found == TOP_LEVEL


def test_the_package_is_small() -> None:
    files = [path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    lines = sum(path.read_text().count("\n") for path in files)
    assert len(files) <= FEW_FILES
    assert lines <= FEW_LINES


def test_private_files_have_no_all() -> None:
    """What they share is what others import of them."""
    found = [
        str(path.relative_to(ROOT))
        for path in FILES
        if any(re.match(r"_[^_]", name) for name in path.relative_to(ROOT).parts)
        and re.search(r"^__all__\b", path.read_text(), re.MULTILINE)
    ]
    assert found == []


def test_every_file_has_a_subject() -> None:
    """And a name that says it."""
    none = {"utils", "helpers", "common", "misc"}
    assert [path for path in FILES if path.stem.strip("_") in none] == []


HEAVY = (
    "multiprocessing asyncio concurrent typing_extensions socket ssl logging tempfile subprocess "
    "dataclasses inspect selectors typing"
)


def test_the_import_drags_in_nothing() -> None:
    """In an interpreter as bare as there is one."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT.parent)!r})
before = set(sys.modules)
import forksafe
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(sorted(loaded & set({HEAVY.split()!r})))
"""
    done = script(program, "-I", "-S")  # as text: before it nothing is loaded, nor found
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_typing_extensions_is_used_by_type_checkers_alone() -> None:
    """The one dependency: some annotation needs it, and nothing at run time does."""
    wanting = [path for path in FILES if "typing_extensions" in path.read_text()]
    assert wanting, "no file imports it"
    for path in wanting:
        for node in at_load(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "typing_extensions", path
            assert not isinstance(node, ast.Import) or "typing_extensions" not in [
                alias.name for alias in node.names
            ]
