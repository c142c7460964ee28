"""What the command line looks like; the one place that knows all subcommands.

A subcommand is one function here, which describes its options, and one module of its own, which is
imported when it is its turn: ``forksafe run`` should load little that the program did not ask for.

One rule goes beyond argparse. Everything after PROGRAM belongs to the program, word for word, also
``--help`` and ``--``; argparse would look at it, and differently in each version of Python. So the
command line of ``run``, and of ``audit``, is cut before argparse sees it.
"""

from __future__ import annotations

import argparse
import sys

from .. import __version__, install

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_WITH_VALUE = ("--allow", "--audit")  # of ``run`` and ``audit``: the next word, where there is no =

USAGE_ERROR = 2  # as argparse has it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The words after ``forksafe``; None: those of this process.

    Returns:
        The exit status.

    Raises:
        SystemExit: By argparse, after ``--help`` and wrong usage; by the program of
            ``forksafe run``, and so is whatever else that program raises.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command: list[str] = []
    if words[:1] in (["run"], ["audit"]):
        words, command = _cut(words)
    parser = _parser()
    options = parser.parse_args(words)
    if options.handler is None:
        parser.print_usage(sys.stderr)
        return USAGE_ERROR
    options.command = command
    status: int = options.handler(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forksafe",
        description="Makes os.fork() safe: a forked child as healthy as a multiprocessing.Process.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"forksafe {__version__}")
    parser.set_defaults(handler=None)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (_add_run, _add_audit, _add_demo):
        add(subparsers)
    return parser


def _cut(words: list[str]) -> tuple[list[str], list[str]]:
    """Cut the words of ``run`` or ``audit``: its own options; the program with its arguments."""
    for index, word in enumerate(words[1:], 1):
        if words[index - 1] in _WITH_VALUE and index > 1:
            continue
        if word == "--":
            return words[:index], words[index + 1 :]
        if word.startswith("-m") and len(word) > 2:  # -mMODULE, as python takes it
            return [*words[:index], "-m"], [word[2:], *words[index + 1 :]]
        if not word.startswith("-"):
            return words[:index], words[index:]
    return words, []


def _add_run(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "run",
        help="run a Python program in which every fork is safe",
        usage=(
            "forksafe run [-h] [--audit={warn,raise}] [--allow=PATTERN ...] "
            "[-m MODULE | PROGRAM] [ARGS ...]"
        ),
        description=(
            "Run a Python program as `python PROGRAM ARGS...` does, in this process, after "
            "forksafe.install(). PROGRAM is a file, a directory or zip file with a __main__.py, "
            "or the name of an installed command: forksafe run gunicorn app:app. All that "
            "follows PROGRAM belongs to it."
        ),
        epilog=(
            "The hook reaches this process and what it forks, also forks of forks. It does not "
            "reach new interpreters that the program starts (subprocess, os.exec*, the spawn "
            "and forkserver start methods of multiprocessing)."
        ),
        allow_abbrev=False,
    )
    parser.add_argument(
        "-m", dest="module", action="store_true", help="run the module MODULE as python -m does"
    )
    parser.add_argument(
        "--audit",
        choices=("warn", "raise"),
        help="at each fork, warn of what it breaks, or refuse to fork",
    )
    _add_allow(parser)

    def handle(options: argparse.Namespace) -> int:
        if not options.command:
            parser.print_usage(sys.stderr)
            print("forksafe run: which PROGRAM, or which -m MODULE?", file=sys.stderr)
            return USAGE_ERROR
        from ._run import run

        if options.allow and options.audit is None:
            print("forksafe run: --allow is of use with --audit only", file=sys.stderr)
            return USAGE_ERROR
        if options.audit is not None and not _prepare_audit(options):
            return USAGE_ERROR
        program, *arguments = options.command
        return run(program, arguments, module=options.module)

    parser.set_defaults(handler=handle)


def _prepare_audit(options: argparse.Namespace) -> bool:
    try:
        install(on_hazard=options.audit, allow=options.allow)
    except ValueError as exc:
        print(f"forksafe run: {exc}", file=sys.stderr)
        return False
    if options.audit == "raise":
        from ._audit import refuse_forks

        refuse_forks(options.allow)
    return True


def _add_allow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PATTERN",
        help="accept such hazards: --allow='thread:MyMetrics*', --allow='socket:*:5432'",
    )


def _add_audit(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "audit",
        help="say what a fork of a program would break, before it does",
        usage=(
            "forksafe audit [-h] [--json] [--locks] [--allow=PATTERN ...] "
            "[MODULE[:ATTR[()]] | -m MODULE | PROGRAM] [ARGS ...]"
        ),
        description=(
            "Import MODULE, as a server does that preloads an application, and say what a fork "
            "would then meet: threads, connections, pools, locks. With -m MODULE, or with the "
            "path of a PROGRAM, run it until it is about to fork for the first time, look there, "
            "and end it."
        ),
        epilog="Exit status: 0 nothing to do, 1 action needed, 2 wrong usage, or it does not load.",
        allow_abbrev=False,
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run MODULE as python -m")
    parser.add_argument("--json", action="store_true", help="tell it as JSON, alone on stdout")
    parser.add_argument("--locks", action="store_true", help="look for held locks, too: a second")
    _add_allow(parser)

    def handle(options: argparse.Namespace) -> int:
        from ._audit import Report, audit_program, audit_target, is_target

        program, *arguments = options.command or ("",)
        target = not options.module and is_target(program)
        if not program or (target and arguments):
            parser.print_usage(sys.stderr)
            if arguments:
                print(
                    f"forksafe audit: {program} takes no arguments; options go before it",
                    file=sys.stderr,
                )
            else:
                print("forksafe audit: which MODULE[:ATTR], -m MODULE or PROGRAM?", file=sys.stderr)
            return USAGE_ERROR
        try:
            report = Report(program, options.allow, options.locks, options.json)
        except ValueError as exc:
            print(f"forksafe audit: {exc}", file=sys.stderr)
            return USAGE_ERROR
        if target:
            return audit_target(program, report)
        return audit_program(program, arguments, options.module, report)

    parser.set_defaults(handler=handle)


def _add_demo(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="show what os.fork() breaks, and that forksafe mends it",
        description=(
            "A parent and its forked child use one dictionary of a multiprocessing manager at "
            "once: under os.fork(), and under each of forksafe's ways to fork. Exit status 0 if "
            "all of forksafe's are ok. Takes a few seconds, at most 20."
        ),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--json", action="store_true", help="the result as JSON on stdout, progress on stderr"
    )

    def handle(options: argparse.Namespace) -> int:
        from ._demo import demo

        return demo(as_json=options.json)

    parser.set_defaults(handler=handle)
