"""What the steps of the reset heal, told by the steps' own finders.

So the audit claims no more than the reset does. Where a step gives up its finder raises, too.
"""

from __future__ import annotations

import os
from _thread import get_ident

from .._fork_event import _who, expect
from .._fork_event._typing import Any, Iterator
from .._hazard import Hazard, tell
from .._libraries._heap import loaded
from .._steps import _executors, _mp, _streams
from .._steps._executors import _thread_executors
from ._scene import Scene, address_of, path_of

_ASYNCIO_LOOP, _UVLOOP = "asyncio.selector_events:BaseSelectorEventLoop", "uvloop:Loop"
WANTED = (_ASYNCIO_LOOP, _UVLOOP)


def of_log_handlers(scene: Scene) -> tuple[Hazard, ...]:
    scene.mended |= {id(handler) for handler, _ in _streams.waiting_handlers()}
    return ()


def of_event_loops(scene: Scene) -> Iterator[Hazard]:
    for loop in scene.instances(_ASYNCIO_LOOP):
        name, state = path_of(loop), loop.__dict__
        if state.get("_ssock") is not None:  # else it is closed, or not made yet
            ours = state.get("_thread_id") in (None, get_ident())
            yield tell("event-loop", name, name) if ours else tell("event-loop running", name, name)
    for loop in scene.instances(_UVLOOP):
        if not loop.is_closed():
            yield tell("event-loop in C", path_of(loop), path_of(loop))


def of_pools(scene: Scene) -> Iterator[Hazard]:
    for pool, owner in _executors.live_pools():
        _executors._check_pool(pool)
        if vars(pool)["_worker_handler"].is_alive():  # else it was closed, and came to its end
            name = type(pool).__name__
            yield tell("pool", name, f"{path_of(pool)}, of process {owner}", name)


def of_process_executors(scene: Scene) -> Iterator[Hazard]:
    name, where = "ProcessPoolExecutor", "concurrent.futures.process:ProcessPoolExecutor"
    for live in _executors.live_process_executors():
        _executors._check_executor(live)
        if live.thread is not None and live.thread.is_alive():  # else it was shut down
            owner = live.owner or os.getpid()
            yield tell("executor at work", name, f"{where}, of process {owner}", name)


def of_thread_executors(scene: Scene) -> Iterator[Hazard]:
    kind = "ThreadPoolExecutor"
    interpreters = loaded("concurrent.futures.interpreter:InterpreterPoolExecutor") or ()
    for pool in _thread_executors.live_thread_executors():
        expect(not (odd := _thread_executors.oddity(pool)), odd)
        alive = any(thread.is_alive() for thread in pool.threads)  # else it was shut down
        if alive and not isinstance(pool.executor, interpreters):
            name = str(getattr(pool.executor, "_thread_name_prefix", "(dropped)"))
            name = name if name.startswith(kind) else f"{kind} {name}"
            yield tell("executor", name, f"concurrent.futures.thread:{kind}", name)


def of_registry(scene: Scene) -> Iterator[Hazard]:
    proxies: list[str] = []
    for obj in [refer() for one in _mp.registries() for refer in list(one.entries.values())]:
        thread = getattr(obj, "_thread", None)
        if _is_a(obj, "managers:BaseProxy"):
            proxies.append(address_of(getattr(getattr(obj, "_token", None), "address", "?")))
        elif _is_a(obj, "queues:Queue") and thread is not None and thread.is_alive():
            yield tell("queue", str(thread.name), path_of(obj), type(obj).__name__)
    for address in dict.fromkeys(proxies):
        yield tell("proxy", address, f"manager at {address}", proxies.count(address))


def _is_a(obj: Any, path: str) -> bool:
    return isinstance(obj, tuple(loaded(f"{family}.{path}") or () for family in _who.NAMES))
