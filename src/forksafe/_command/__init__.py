"""The command ``forksafe``, on top of the package: its options and arguments."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from .. import __version__, safe_fork
from ._run import Refused, cut, run

_PROGRAM = "[python] {PROGRAM | COMMAND | -m MODULE | -c CODE | -} [ARGS ...]"
_RUN = "Run a file, directory, zip file or installed command as python does, with every fork safe."
_AUDIT = """Import MODULE, as a server does that preloads, or run a program until it forks a worker;
look there, and end. Exit status: 0 nothing to do, 1 action needed, 2 it does not load."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of this process, or `argv`; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    program: list[str] = []
    if words[:1] in (["run"], ["audit"]):
        words[1:], program = cut(words[1:])
    options = _parser().parse_args(words)
    try:
        if options.command == "demo":
            if not hasattr(os, "fork"):
                raise Refused("this platform has no os.fork(), so nothing breaks")
            from ._demo import demo

            return demo()
        if not program:
            raise Refused(f"which program? See forksafe {options.command} --help")
        hook: dict[str, Any] = {"drop_connections": True} if options.drop_connections else {}
        if options.command == "audit":
            from ._audit import audit

            return audit(program, options, _allowed(options.allow), hook)
        if options.audit:
            hook.update(on_hazard=options.audit, allow=_allowed(options.allow))
        elif options.allow:
            raise Refused("--allow is of use with --audit only")
        if options.audit == "raise":  # a fork goes on whatever a hook raises
            os.fork = partial(safe_fork, **hook)
        return run(program, hook)
    except Refused as exc:
        print(f"forksafe {options.command}: {exc}", file=sys.stderr)
        return 2


def _allowed(patterns: list[str]) -> list[str]:
    """Return these patterns and those of ``pyproject.toml`` in the current directory, checked."""
    from .._hazard import AllowList

    try:
        AllowList(patterns)
        with suppress(OSError), open("pyproject.toml", "rb") as file:
            if b"tool.forksafe" in (data := file.read()):
                toml = __import__("tomllib" if sys.version_info >= (3, 11) else "tomli")
                table = toml.loads(data.decode()).get("tool", {}).get("forksafe", {})
                patterns = [*patterns, *table.get("allow", [])]
                AllowList(patterns)
    except ImportError:
        print("forksafe: pyproject.toml is not read: tomli is not installed", file=sys.stderr)
    except (ValueError, TypeError, AttributeError) as exc:
        raise Refused(f"--allow, or pyproject.toml: {exc}") from None
    return patterns


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("forksafe", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"forksafe {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    add = partial(commands.add_parser, allow_abbrev=False)
    usage = f"forksafe run [OPTIONS]\n       {_PROGRAM}"
    run_ = add("run", help="run a program with every fork safe", usage=usage, description=_RUN)
    run_.add_argument("--audit", choices=("warn", "raise"), help="warn at each fork, or refuse it")
    usage = f"forksafe audit [OPTIONS] {{MODULE[:ATTR[(ARGS)]] |\n       {_PROGRAM}}}"
    audit = add("audit", help="say what a fork would break", usage=usage, description=_AUDIT)
    audit.add_argument("--locks", action="store_true", help="look for held locks, too: a second")
    audit.add_argument("--processes", action="store_true", help="take a Process for a worker, too")
    audit.add_argument("--json", action="store_true", help="tell it as JSON, alone on stdout")
    add("demo", help="show what os.fork() breaks, and that forksafe mends it")
    for one in (run_, audit):
        allow = one.add_argument("--allow", action="append", default=[], metavar="KIND:SUBJECT")
        allow.help = "accept such hazards, as does [tool.forksafe] allow = [...] in pyproject.toml"
        drop = one.add_argument("--drop-connections", action="store_true")
        drop.help = "children connect anew: see drop_connections of install()"
    return parser
