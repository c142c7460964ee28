"""Rows 1 to 5: the after-fork registry runs on every fork, after the parent's finalizers are gone.

``multiprocessing`` and its users register with ``multiprocessing.util.register_after_fork`` what
a child must do: proxies drop the connection they share with the parent, queues start afresh,
locks are unlocked. Only ``Process`` runs that registry; a bare ``os.fork()`` does not
(cpython gh-101320).

Each callback runs exactly once. A second run is no harmless repetition: a proxy's callback takes
a reference at its manager. So where ``Process`` itself forks, its own run is the one, and the
signal mask is restored behind it, by an entry that sorts last.
"""

from __future__ import annotations

from .. import _families, _signals
from .._origin import Launch
from .._step import Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._forking import Forking

__all__ = ["RegistryStep"]

_LAST = float("inf")


class RegistryStep(Step):
    name = "registry"
    modules = _families.submodules("util")

    def __init__(self) -> None:
        self._waiting: Forking | None = None

    def reset(self, fork: Forking, note: None) -> bool:
        origin = fork.origin
        theirs = origin.registry if isinstance(origin, Launch) else None
        done: list[Any] = []
        for util in _families.loaded(self.modules):
            registry = getattr(util, "_afterfork_registry", None)
            finalizers = getattr(util, "_finalizer_registry", None)
            if any(registry is other for other in done):
                continue  # billiard.util has those of multiprocessing.util
            expect(
                hasattr(registry, "items"),
                f"{util.__name__}._afterfork_registry is no mapping",
            )
            expect(
                isinstance(finalizers, dict),
                f"{util.__name__}._finalizer_registry is no dict",
            )
            assert registry is not None and finalizers is not None
            done.append(registry)
            if registry is theirs:
                if origin.standard and fork.mask is not None:  # type: ignore[attr-defined]
                    self._restore_signals_behind(registry, fork)
                continue
            finalizers.clear()
            _run(registry, fork.raised)
        return bool(done)

    def _restore_signals_behind(self, registry: Any, fork: Forking) -> None:
        key = (_LAST, id(fork), _LAST)

        def restore(fork: Forking) -> None:
            del registry[key]
            self._waiting = None
            assert fork.mask is not None
            _signals.restore(fork.mask)

        key = (_LAST, id(fork), restore)  # type: ignore[assignment]
        self._waiting = fork  # the registry's reference is weak
        registry[key] = fork
        fork.deferred = True


def _run(registry: Any, raised: list[BaseException]) -> None:
    # As _run_after_forkers() does it, but without logging, and for whatever a callback raises.
    items = list(registry.items())
    items.sort()
    for (_index, _ident, callback), obj in items:
        try:
            callback(obj)
        except BaseException as exc:  # the others must run, and the fork must return
            raised.append(exc.with_traceback(None))
