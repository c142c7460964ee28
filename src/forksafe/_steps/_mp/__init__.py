"""Rows 1 to 5: the after-fork registry runs on every fork, after the parent's finalizers are gone.

Only ``Process`` runs what ``multiprocessing.util.register_after_fork`` has been given; a bare
``os.fork()`` does not (cpython gh-101320). Each callback must run exactly once: a proxy's takes a
reference at its manager. First come the entries of multiprocessing and its kin, while signals are
blocked; then those of the program, under its own mask (`ForkEvent.finish`). The child of
``Process.start()`` runs its registry itself: there we stand in for ``_run_after_forkers()``.
"""

from __future__ import annotations

from ..._fork_event import ForkEvent, Step, UnknownLayout, _who
from ..._fork_event._typing import Any
from ..._fork_event._who import Launch

# By a key (an index, the object's id, the callback) a weak reference to the object.
Entries = dict[tuple[int, int, Any], Any]
_OWN = tuple(f"{name}." for name in _who.NAMES)  # how the names of their modules begin


class RegistryStep(Step):
    name = "registry"
    modules = _who.submodules("util")
    looks = (":launch", *_who.paths("util", "_afterfork_registry.data", "_finalizer_registry"))

    def note(self, fork: ForkEvent) -> list[Registry]:
        return registries()

    def reset(self, fork: ForkEvent, note: list[Registry] | None) -> bool:
        families = registries() if note is None else note
        noted = [one.own_and_programs(fork.launch) for one in families]
        for one, (own, programs) in zip(families, noted):
            if fork.launch is None or fork.launch.registry is not one.registry:
                one.finalizers.clear()
                run_own(fork, own)
                fork.callbacks += (programs,)
                if len(families) > 1:
                    _join_finalizers(one, families)
            elif fork.launch.standard:
                _take_the_run(fork, one, families)
        return bool(families)


class Registry:
    """One after-fork registry and the finalizers of the same family, whose shape was checked."""

    def __init__(self, util: Any) -> None:
        self.util = util
        self.registry = getattr(util, "_afterfork_registry", None)
        self.entries: Any = getattr(self.registry, "data", None)
        self.finalizers: Any = getattr(util, "_finalizer_registry", None)
        if type(self.entries) is not dict or type(self.finalizers) is not dict:
            raise UnknownLayout(f"{util.__name__} without its registries")

    def own_and_programs(self, launch: Launch | None) -> tuple[Entries, Entries]:
        """Return multiprocessing's own entries, and the program's; none if `launch` runs them."""
        if launch is not None and launch.registry is self.registry:
            return {}, {}
        programs = self.entries.copy()  # in the order in which they were registered
        callbacks = {callback for _, _, callback in programs}
        mine = {each for each in callbacks if f"{each.__module__}".startswith(_OWN)}
        own = [key for key in programs if key[2] in mine] if mine else []
        return {key: programs.pop(key) for key in own}, programs

    def utils(self) -> list[Any]:
        """Return the modules that share this registry, as billiard.util does multiprocessing's."""
        utils = _who.loaded(RegistryStep.modules)
        return [u for u in utils if getattr(u, "_afterfork_registry", None) is self.registry]


def registries() -> list[Registry]:
    """Return every registry once. Reads only."""
    found: dict[int, Registry] = {}
    for util in _who.loaded(RegistryStep.modules):
        found.setdefault(id(getattr(util, "_afterfork_registry", None)), Registry(util))
    return [*found.values()]


def run_own(fork: ForkEvent, entries: Entries) -> None:
    for (_index, _ident, callback), reference in entries.items():
        obj = reference()
        if obj is not None:
            try:
                callback(obj)
            except BaseException as exc:  # the others must run, and the fork must return
                fork.note_raised(exc, callback)


def _take_the_run(fork: ForkEvent, theirs: Registry, families: list[Registry]) -> None:
    """Stand in for ``_run_after_forkers()``, once, in the child of ``Process.start()``."""
    original = theirs.util._run_after_forkers

    def run() -> None:
        for util in theirs.utils():
            if util._run_after_forkers is run:
                util._run_after_forkers = original
        fork.launch = None  # from here on it is a fork like any other
        own, programs = theirs.own_and_programs(None)
        run_own(fork, own)
        fork.callbacks = (programs, *fork.callbacks)
        _join_finalizers(theirs, families)
        fork.finish()

    for util in theirs.utils():
        util._run_after_forkers = run
    fork.deferred = True


def _join_finalizers(first: Registry, families: list[Registry]) -> None:
    """Have `first` run other families' finalizers, too: a ``Process`` ends by those of its own."""
    for other in families:
        if other is not first:  # after the program's own finalizers, and feeder threads' (-5)
            first.util.Finalize(None, other.util._run_finalizers, exitpriority=-100)
