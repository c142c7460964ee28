"""What the registry step finds in the after-fork registry, told kind by kind."""

from __future__ import annotations

from collections import Counter

from .._fork_event import _families
from .._hazard import FIXED, Hazard
from . import _loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


def describe(objects: Iterable[Any], finalizers: Iterable[Any]) -> Iterator[Hazard]:
    """Yield what a fork would do to one family's registered objects and finalizers."""
    proxies: dict[str, Counter[str]] = {}
    others: Counter[str] = Counter()
    for obj in objects:
        if _is_a(obj, "managers", "BaseProxy"):
            address = _address(getattr(getattr(obj, "_token", None), "address", "?"))
            proxies.setdefault(address, Counter())[type(obj).__name__] += 1
        elif _is_a(obj, "queues", "Queue") and _feeds(obj):
            yield _queue(obj)
        else:
            others[f"{type(obj).__module__}:{type(obj).__qualname__}"] += 1
    for finalizer in finalizers:
        yield from _manager(finalizer)
    for address, types in proxies.items():
        yield Hazard(
            "proxy",
            FIXED,
            f"manager proxies ({_counted(types)}) would share their connection with the child",
            subject=address,
            detail="Replies of the manager reach the wrong process, and both hang or fail.",
            remedy="nothing under forksafe: the child's proxies open connections of their own",
            where=f"manager at {address}",
        )
    if others:
        yield Hazard(
            "after-fork-callbacks",
            FIXED,
            f"{sum(others.values())} after-fork callbacks would not be run by os.fork()",
            subject=", ".join(sorted(others)),
            detail=f"They belong to {_counted(others)}.",
            remedy="nothing under forksafe: they run in every child, once",
            where="multiprocessing.util:register_after_fork",
        )


def _is_a(obj: Any, submodule: str, name: str) -> bool:
    for family in _families.NAMES:
        cls = _loaded.attribute(f"{family}.{submodule}", name)
        if isinstance(cls, type) and isinstance(obj, cls):
            return True
    return False


def _feeds(queue: Any) -> bool:
    thread = getattr(queue, "_thread", None)
    return thread is not None and thread.is_alive()


def _queue(queue: Any) -> Hazard:
    thread = getattr(queue, "_thread", None)
    name = str(getattr(thread, "name", "QueueFeederThread"))
    return Hazard(
        "queue",
        FIXED,
        f"what the child puts into a {type(queue).__name__} would be lost: its feeder thread "
        "stays with the parent",
        subject=name,
        detail="What the parent has put, and its feeder has not yet sent, is sent by the parent.",
        remedy="nothing under forksafe: the child's queue starts a feeder of its own",
        where=f"{type(queue).__module__}:{type(queue).__qualname__}",
    )


def _manager(finalizer: Any) -> Iterator[Hazard]:
    callback = getattr(finalizer, "_callback", None)
    for family in _families.NAMES:
        manager = _loaded.attribute(f"{family}.managers", "BaseManager")
        if callback is not None and callback is getattr(manager, "_finalize_manager", None):
            process, address = finalizer._args[:2]
            yield Hazard(
                "manager",
                FIXED,
                f"manager {process.name!r} would be shut down by a child that ends by sys.exit()",
                subject=str(process.name),
                detail="The child inherits the finalizer that ends the manager's process.",
                remedy="nothing under forksafe: the child starts without the parent's finalizers",
                where=f"manager at {_address(address)}, pid {process.pid}",
            )
            return


def _address(address: Any) -> str:
    if isinstance(address, tuple):
        return ":".join(str(part) for part in address)
    if isinstance(address, bytes):
        address = address.decode(errors="replace")
    return str(address).replace("\0", "@", 1)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(
        name if count == 1 else f"{count} {name}" for name, count in sorted(counts.items())
    )
