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

from ..._fork_event import _families, _later_hooks, _signals
from ..._fork_event._step import Idle, Step, expect
from ..._fork_event._who import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ..._fork_event import Forking

_LAST = float("inf")
_AT_THE_END = -100  # behind a program's own finalizers, the feeder threads' (-5) among them


class RegistryStep(Step):
    name = "registry"
    modules = _families.submodules("util")

    def __init__(self) -> None:
        self._registries: list[_Registry] = []
        self._waiting: Forking | None = None

    def note(self, fork: Forking) -> Idle | list[tuple[_Registry, list[Any] | None, bool]]:
        if fork.fresh:
            self._registries = list(registries())
        origin = fork.origin
        theirs = origin.registry if isinstance(origin, Launch) else None
        idle = theirs is None
        noted: list[tuple[_Registry, list[Any] | None, bool]] = []
        for one in self._registries:
            entries = one.entries
            clear = bool(one.finalizers)
            if entries or clear:
                idle = False
            # In order already here: in the child the walk would copy the page of each. The keys are
            # (index, id, callback), and no two indexes are the same.
            callbacks = None if one.registry is theirs else sorted(entries.items())
            noted.append((one, callbacks, clear))
        return Idle(*(x for one in self._registries for x in one.state)) if idle else noted

    def reset(self, fork: Forking, note: Any) -> bool:
        if note is None:
            note = [(one, (), True) for one in registries()]
        for one, callbacks, clear in note:
            if callbacks is None:
                if fork.origin.standard:  # type: ignore[attr-defined]
                    self._go_on_behind(one, [other for other, _, _ in note], fork)
                continue
            if not fork.alone:  # or nothing noted: others may have registered since
                clear = True
                if len(one.entries) != len(callbacks):
                    callbacks = sorted(one.entries.items())
            if clear:
                one.finalizers.clear()
            # As _run_after_forkers() does it, but without logging, and whatever a callback raises.
            if callbacks and _later_hooks.LATER:
                _later_hooks.free_locks()
            for (_index, _ident, callback), reference in callbacks:
                obj = reference()
                if obj is not None:
                    try:
                        callback(obj)
                    except BaseException as exc:  # the others must run, and the fork must return
                        fork.raised += (exc.with_traceback(None),)
        if len(note) > 1:
            families = [one for one, _, _ in note]
            for one, callbacks, _ in note:
                if callbacks is not None and one.ends_a_process():
                    _join_finalizers(one, families)
        return bool(note)

    def _go_on_behind(self, theirs: _Registry, all_: list[_Registry], fork: Forking) -> None:
        """Do the rest of the reset when ``Process`` has run its registry, as its last entry."""
        registry = theirs.registry

        def go_on(fork: Forking) -> None:
            del registry[key]
            self._waiting = None
            _join_finalizers(theirs, all_)
            if fork.mask is not None:
                _signals.restore(fork.mask)

        key = (_LAST, id(fork), go_on)
        self._waiting = fork  # the registry's reference is weak
        registry[key] = fork
        fork.deferred = True


class _Registry:
    """One after-fork registry, and what of it is looked at."""

    def __init__(
        self, util: Any, registry: Any, entries: dict[Any, Any], finalizers: dict[Any, Any]
    ) -> None:
        self.util = util
        self.registry = registry
        self.entries = entries
        self.finalizers = finalizers
        self.state = (entries, finalizers)

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


def _join_finalizers(first: _Registry, families: list[_Registry]) -> None:
    for other in families:
        run = getattr(other.util, "_run_finalizers", None)
        if other is not first and run is not None:
            first.util.Finalize(None, run, exitpriority=_AT_THE_END)


def registries() -> Iterator[_Registry]:
    """Yield every registry once: billiard.util has those of multiprocessing.util."""
    seen: list[object] = []
    for util in _families.loaded(_families.submodules("util")):
        registry = getattr(util, "_afterfork_registry", None)
        finalizers = getattr(util, "_finalizer_registry", None)
        entries = getattr(registry, "data", None)
        expect(isinstance(entries, dict), f"{util.__name__}._afterfork_registry has no data")
        expect(isinstance(finalizers, dict), f"{util.__name__}._finalizer_registry is no dict")
        assert entries is not None and finalizers is not None
        if not any(registry is other for other in seen):
            seen.append(registry)
            yield _Registry(util, registry, entries, finalizers)
