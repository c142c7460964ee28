"""What a step is: one subsystem that a fork breaks, and how it is made whole.

`Step.note` and `Step.reset` run inside ``os.fork()``. Nothing is imported, logged or printed there,
and no lock is waited for. A subsystem that was never imported has no state. Private state of the
standard library is touched only after its shape was checked, so that a new Python that moves an
attribute is reported, not broken (`UnknownLayout`). Whatever a step raises is told, and stops
neither the next step nor the fork.
"""

from __future__ import annotations

import sys

from . import ForkEvent
from ._typing import Any, Callable, Iterable, Never


class UnknownLayout(Exception):
    """Private state does not look as on any Python this was tested on; the step leaves it alone."""


def expect(condition: object, what: str) -> None:
    """Raise `UnknownLayout` naming `what` unless `condition` holds."""
    if not condition:
        raise UnknownLayout(what)


def mend_each(mend: Callable[[Any], object], things: Iterable[Any]) -> None:
    """Mend each thing, also behind one that cannot be mended: that is raised in the end."""
    failure: Exception | None = None
    for thing in things:
        try:
            mend(thing)
        except (OSError, UnknownLayout) as exc:
            failure = exc
    if failure is not None:
        raise failure


# What steps take from the child: it may have finalizers, which must not run inside the fork.
kept: list[object] = []

# What `Step.note` returns where the child has nothing to do. The reset is then spared.
NOTHING: Any = object()


class Step:
    """One subsystem. Subclasses have one instance, in the list that states the order."""

    name: str = ""  # how last_reset() and the documentation call it
    # Those that hold the state. While none is loaded the step is skipped. Empty: it always runs.
    modules: tuple[str, ...] = ()
    only_beside_threads = False  # whether it is skipped where this is the only thread

    def loaded(self) -> bool:
        return not self.modules or any(module in sys.modules for module in self.modules)

    def note(self, fork: ForkEvent) -> Any:
        """Look, before the fork, at what the child cannot see. `ForkEvent.undo` is to undo it."""
        return None

    def reset(self, fork: ForkEvent, note: Any) -> bool | str:
        """Make the subsystem whole in the child; return what was done, or whether anything was.

        `note` is what `Step.note` returned; None where it raised, or where no ``before`` half ran.
        """
        raise NotImplementedError

    def leave(self) -> None:
        """Take away what of ours is in this process: for `uninstall()`."""


class _Raises:
    def __init__(self, exc: BaseException, what: str) -> None:
        self._exc, self._what = exc, what

    def __call__(self, *args: object) -> Never:
        raise self._exc

    def __repr__(self) -> str:
        return self._what


def tell(exc: BaseException, what: str) -> None:
    """Give an exception to ``sys.unraisablehook``, as one that was raised in `what`.

    CPython does so with those of at-fork hooks. Any finalizer that raises leads there. PyPy runs
    finalizers late; but its hook takes any object.
    """
    if sys.implementation.name == "pypy":
        told: Any = _Raises(exc, what)
        told.exc_type, told.exc_value, told.exc_traceback = type(exc), exc, exc.__traceback__
        told.err_msg, told.extra_line, told.object = "Exception ignored in", "", what
        sys.unraisablehook(told)
    else:
        type("_Told", (), {"__del__": _Raises(exc, what)})()  # nobody takes it: the hook has it now
