"""Rows 1 to 5: the after-fork registry runs on every fork, after the parent's finalizers are gone.

``multiprocessing`` and its users register with ``multiprocessing.util.register_after_fork`` what
a child must do: proxies drop the connection they share with the parent, queues start afresh,
locks are unlocked. Only ``Process`` runs that registry; a bare ``os.fork()`` does not
(cpython gh-101320).

Each callback runs exactly once. A second run is no harmless repetition: a proxy's callback takes
a reference at its manager. So where ``Process`` itself forks, its own run is the one, and the
signal mask is restored behind it, by an entry that sorts last.

A ``Process`` ends by the finalizers of its own family, and knows no other. What the callbacks of
another family took in the child is given back there, so that family's finalizers join the first's.
"""

from __future__ import annotations

import sys

from .. import _families, _signals
from .._origin import Launch
from .._step import Idle, Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._forking import Forking

__all__ = ["RegistryStep"]

_LAST = float("inf")
_AT_THE_END = -100  # behind a program's own finalizers, the feeder threads' (-5) among them


class RegistryStep(Step):
    name = "registry"
    modules = _families.submodules("util")

    def __init__(self) -> None:
        self._waiting: Forking | None = None

    def note(self, fork: Forking) -> Idle | list[_Registry]:
        found = self._found(fork)
        if any(one.due for one in found) or any(one.finalizers for one in found):
            return found
        return Idle(*[one.entries for one in found], *[one.finalizers for one in found])

    def reset(self, fork: Forking, note: list[_Registry] | None) -> bool:
        origin = fork.origin
        found = self._found(fork) if note is None else note
        for one in found:
            if one.callbacks is None:
                if origin.standard:  # type: ignore[attr-defined]
                    self._go_on_behind(one, found, fork)
                continue
            one.finalizers.clear()
            callbacks = one.callbacks
            if len(one.entries) != one.size:  # another thread registered something meanwhile
                callbacks = _in_order(one.registry)
            _run(callbacks, fork.raised)
        if len(found) > 1:
            for one in found:
                if one.callbacks is not None and one.ends_a_process():
                    _join_finalizers(one, found)
        return bool(found)

    def _found(self, fork: Forking) -> list[_Registry]:
        origin = fork.origin
        theirs = origin.registry if isinstance(origin, Launch) else None
        found: list[_Registry] = []
        for util in _families.loaded(self.modules):
            registry = getattr(util, "_afterfork_registry", None)
            finalizers = getattr(util, "_finalizer_registry", None)
            if any(registry is other.registry for other in found):
                continue  # billiard.util has those of multiprocessing.util
            entries = getattr(registry, "data", None)
            expect(
                isinstance(entries, dict),
                f"{util.__name__}._afterfork_registry has no data",
            )
            expect(
                isinstance(finalizers, dict),
                f"{util.__name__}._finalizer_registry is no dict",
            )
            assert entries is not None and finalizers is not None
            found.append(_Registry(util, registry, entries, finalizers, registry is theirs))
        return found

    def _go_on_behind(self, theirs: _Registry, found: list[_Registry], fork: Forking) -> None:
        registry = theirs.registry
        key = (_LAST, id(fork), _LAST)

        def go_on(fork: Forking) -> None:
            del registry[key]
            self._waiting = None
            _join_finalizers(theirs, found)
            if fork.mask is not None:
                _signals.restore(fork.mask)

        key = (_LAST, id(fork), go_on)  # type: ignore[assignment]
        self._waiting = fork  # the registry's reference is weak
        registry[key] = fork
        fork.deferred = True


class _Registry:
    """One after-fork registry, with its callbacks in order.

    They are put in order in the parent: in the child the walk would copy the page of each.
    """

    __slots__ = ("callbacks", "due", "entries", "finalizers", "registry", "size", "util")

    def __init__(
        self,
        util: Any,
        registry: Any,
        entries: dict[Any, Any],
        finalizers: dict[Any, Any],
        theirs: bool,
    ) -> None:
        self.util = util
        self.registry = registry
        self.entries = entries
        self.finalizers = finalizers
        self.size = len(entries)
        self.callbacks = None if theirs else _in_order(registry)
        self.due = theirs or bool(self.callbacks)

    def ends_a_process(self) -> bool:
        """Tell whether the end of this process is that of a ``Process`` with this registry."""
        for name in _families.NAMES:
            util = sys.modules.get(f"{name}.util")
            if getattr(util, "_afterfork_registry", None) is self.registry:
                process = sys.modules.get(f"{name}.process")
                current = getattr(process, "_current_process", None)
                if getattr(current, "_parent_pid", None) is not None:  # not the main process
                    return True
        return False


def _join_finalizers(first: _Registry, found: list[_Registry]) -> None:
    for other in found:
        run = getattr(other.util, "_run_finalizers", None)
        if other is not first and run is not None:
            first.util.Finalize(None, run, exitpriority=_AT_THE_END)


def _in_order(registry: Any) -> list[Any]:
    items = list(registry.items())
    items.sort()
    return items


def _run(callbacks: list[Any], raised: list[BaseException]) -> None:
    # As _run_after_forkers() does it, but without logging, and for whatever a callback raises.
    for (_index, _ident, callback), obj in callbacks:
        try:
            callback(obj)
        except BaseException as exc:  # the others must run, and the fork must return
            raised.append(exc.with_traceback(None))
