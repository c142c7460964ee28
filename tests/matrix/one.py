"""Run one program of a hazard's test file, in this fresh interpreter: FILE FUNCTION STYLE ...

The styles are those of the harness, and ``two-lines``: ``os.fork()`` with the two lines in the
child that are the well-known remedy.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Callable

NOT_RUN = 99  # the exit status where the program could not even be loaded
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "hazards"), str(TESTS)]


class NoPytest:
    """In place of pytest, which many an interpreter has not: decorators do nothing here."""

    def __getattr__(self, name: str) -> NoPytest:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args and callable(args[0]) else self


def fork_with_two_lines() -> int:
    """Fork, and do in the child what multiprocessing's children do first."""
    from multiprocessing import util  # loaded in `main`, so not in the child

    pid = os.fork()
    if pid == 0:
        util._finalizer_registry.clear()  # type: ignore[attr-defined] # private: the two lines
        util._run_after_forkers()  # type: ignore[attr-defined] # likewise
    return pid


def main() -> None:
    """Run it."""
    path, function, style, *arguments = sys.argv[1:]
    sys.modules["pytest"] = NoPytest()  # type: ignore[assignment] # it is no module
    sys.argv = [path]
    two_lines = style == "two-lines"
    try:
        import harness

        class Forker(harness.Forker):
            """The harness's, with one style more."""

            def os_fork(self) -> int:
                return fork_with_two_lines() if two_lines else super().os_fork()

            def _raw(self, body: Callable[[], None], read: int) -> Any:
                return self._by(self.os_fork if two_lines else os.fork, body, read)

        if two_lines:
            import multiprocessing.util  # noqa: F401 - see above
        elif style == "hook":
            import forksafe

            forksafe.install()
        program = getattr(importlib.import_module(Path(path).stem), function)
        forker = Forker({"two-lines": "raw", "process-plain": "process"}.get(style, style))
    except BaseException:
        traceback.print_exc()
        sys.exit(NOT_RUN)
    answer = program(forker, *arguments)
    if answer is not None:
        os._exit(0)  # what such a program has left behind is not waited for


if __name__ == "__main__":
    main()
