"""What the steps of the reset heal, and what they cannot, for people to read.

Each part asks the finder of the step itself, so that the audit claims nothing that the reset does
not do. A finder raises `UnknownLayout` where the reset would leave the subsystem alone.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from collections import Counter

from .._fork_event import _families
from .._hazard import ACTION, FIXED, Hazard
from .._steps import _imports, _loops, _mp, _temp_dirs
from .._steps._executors import _pools, _process_executors, _thread_executors
from .._steps._executors._process_pool_work import live_process_executors
from .._steps._executors._thread_pool_work import live_thread_executors
from .._steps._mp import _fork_server, _process, _tracker
from . import _loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._heap import Heap

_ASYNCIOS = "asyncio.selector_events:BaseSelectorEventLoop"
_UVLOOPS = "uvloop.loop:Loop"
_SHARED_MEMORY = tuple(f"{name}:SharedMemory" for name in _families.submodules("shared_memory"))
WANTED = (_ASYNCIOS, _UVLOOPS, *_SHARED_MEMORY)


def _fixed(
    kind: str, subject: str, summary: str, remedy: str, where: str, detail: str = ""
) -> Hazard:
    return Hazard(kind, FIXED, summary, subject, detail, f"nothing under forksafe: {remedy}", where)


def _of_imports(heap: Heap) -> Iterator[Hazard]:
    for name in _imports.half_imported():
        yield _fixed(
            "import",
            name,
            f"{name}, which another thread is importing, would stay half-initialised in the "
            "child, or hang it",
            "the child imports it from scratch",
            name,
        )


def _of_trackers(heap: Heap) -> Iterator[Hazard]:
    for one in _tracker.trackers():
        pid = one.state.get("_pid")
        if pid is not None:
            yield _fixed(
                "resource-tracker",
                one.module,
                f"the resource tracker of {one.module.partition('.')[0]} would be started a "
                "second time by the child, or lock it up",
                "the child keeps the parent's tracker",
                f"pid {pid}",
                "A second tracker unlinks, at the child's end, what the parent still uses; the "
                "tracker's lock may be held by a thread that the child does not have.",
            )
    for path in _SHARED_MEMORY:
        for memory in heap.instances(path):
            if getattr(memory, "_mmap", None) is not None:
                name = str(getattr(memory, "_name", "?")).lstrip("/")
                yield _fixed(
                    "shared-memory",
                    name,
                    f"shared memory {name} could be unlinked under this process by a child "
                    "with a resource tracker of its own",
                    "the child keeps the parent's tracker",
                    path,
                )


def _of_children(heap: Heap) -> Iterator[Hazard]:
    for _, children in _process.children():
        for child in list(children):
            name = str(getattr(child, "_name", "?"))
            pid = getattr(getattr(child, "_popen", None), "pid", None)
            if getattr(child, "_config", {}).get("daemon"):
                becomes = "would be ended by any child of os.fork() that ends by sys.exit()"
            else:
                becomes = "would seem to be the child's own, which cannot wait for it"
            yield _fixed(
                "child-process",
                name,
                f"process {name!r} {becomes}",
                "the child's list of children starts empty",
                f"pid {pid}",
                "multiprocessing sends SIGTERM to the daemons in its list of children, and joins "
                "the others, at the end of a process.",
            )


def _of_fork_servers(heap: Heap) -> Iterator[Hazard]:
    for module, server in _fork_server.live_fork_servers():
        yield _fixed(
            "forkserver",
            module.__name__,
            f"the child could start no process by the forkserver of "
            f"{module.__name__.partition('.')[0]}: it is none of its own",
            "the child starts one of its own on demand",
            f"pid {getattr(server, '_forkserver_pid', None)}",
        )


def _of_directories(heap: Heap) -> Iterator[Hazard]:
    for _, directory in _temp_dirs.live_directories():
        yield _fixed(
            "temporary-directory",
            str(directory.name),
            f"{directory.name} would be deleted by a child that ends by sys.exit(), or that drops "
            "the TemporaryDirectory",
            "it is the parent's to delete",
            "tempfile:TemporaryDirectory",
        )


def _of_loops(heap: Heap) -> Iterator[Hazard]:
    current = _loops.current_loops()
    for loop in heap.instances(_ASYNCIOS):
        if loop.__dict__.get("_ssock") is None:
            continue  # closed, or not made yet
        name = f"{type(loop).__module__}:{type(loop).__qualname__}"
        if loop.__dict__.get("_thread_id") not in (None, get_ident()):
            yield Hazard(
                "event-loop",
                ACTION,
                "an event loop runs in another thread, and would stand still in the child",
                name,
                "It is in the middle of a step there, and says so for ever.",
                "make a loop in the child, and start its thread there",
                name,
            )
        else:
            state = "the current" if any(loop is other for other in current) else "an"
            yield _fixed(
                "event-loop",
                name,
                f"{state} event loop would share its epoll and self-pipe with the child: each "
                "process deafens the other",
                "in the child the loop gets its own",
                name,
            )
        # The wakeup fd cannot be asked for without setting it. asyncio's loops tell by themselves;
        # others are set back all the same, and not told.
        if getattr(loop, "_signal_handlers", None):
            yield _fixed(
                "wakeup-fd",
                name,
                "signals that arrive in the child would wake the parent's event loop",
                "the child starts without a wakeup fd",
                f"fd {loop._csock.fileno()}",
            )
    for loop in heap.instances(_UVLOOPS):
        if not loop.is_closed():
            name = f"{type(loop).__module__}:{type(loop).__qualname__}"
            yield Hazard(
                "event-loop",
                ACTION,
                "a uvloop event loop would be shared with the child, and cannot be told apart",
                name,
                remedy="make the loop in the child, or close it before the fork",
                where=name,
            )


def _of_pools(heap: Heap) -> Iterator[Hazard]:
    for pool, owner in _pools.live_pools():
        _pools._check(pool)
        if not vars(pool)["_worker_handler"].is_alive():
            continue  # it was closed, and has come to its end
        kind = type(pool)
        size = len(vars(pool)["_pool"])
        yield Hazard(
            "pool",
            ACTION,
            f"a {kind.__name__} of {size} worker{'' if size == 1 else 's'} will refuse work in "
            "the child, where it would wait for ever but for forksafe",
            kind.__name__,
            "Its threads and workers answer to the process that made it, whose own use of it goes "
            "on. In the child every method that submits work raises ValueError.",
            "make the pool in the child, or after the forks",
            f"{kind.__module__}:{kind.__qualname__}, of process {owner}",
        )


def _of_process_executors(heap: Heap) -> Iterator[Hazard]:
    name, module = "ProcessPoolExecutor", "concurrent.futures.process"
    for live in live_process_executors():
        _process_executors._check(live)
        if live.thread is None:
            yield _fixed(
                "executor",
                f"{name} (not used yet)",
                f"a {name} that was not used yet would share its pipes with the child",
                "the child's gets its own when it is first used",
                f"{module}:{name}",
            )
        elif live.thread.is_alive():  # else it was shut down
            yield Hazard(
                "executor",
                ACTION,
                f"a {name} at work will be broken in the child, where it would hang but for "
                "forksafe",
                name,
                f"{len(live.pending)} pieces of work are due. Its thread and its workers are the "
                "parent's, whose own use of it goes on; in the child submit() and the futures "
                "raise BrokenProcessPool.",
                "make the executor in the child, or after the forks",
                f"{module}:{name}, of process {live.owner or os.getpid()}",
            )


def _of_thread_executors(heap: Heap) -> Iterator[Hazard]:
    kind, module = "ThreadPoolExecutor", sys.modules["concurrent.futures.thread"]
    other = sys.modules.get("concurrent.futures.interpreter")
    interpreters = getattr(other, "InterpreterPoolExecutor", ())
    for pool in live_thread_executors():
        _thread_executors._check(pool, module)
        if not any(thread.is_alive() for thread in pool.threads):
            continue  # it was shut down
        if isinstance(pool.executor, interpreters):
            continue  # no child of theirs comes to its reset: `interpreter` tells that
        name = str(getattr(pool.executor, "_thread_name_prefix", "(dropped)"))
        yield _fixed(
            "executor",
            name if name.startswith(kind) else f"{kind} {name}",
            f"the {kind} {name!r} would run nothing in the child",
            "it works in the child, with threads of its own",
            f"{module.__name__}:{kind}",
            f"{len(pool.running) + pool.queue.qsize()} pieces of work are running or queued; they "
            "are the parent's, and their futures raise BrokenThreadPool in the child.",
        )


def _of_registries(heap: Heap) -> Iterator[Hazard]:
    for one in _mp.registries():
        proxies: dict[str, Counter[str]] = {}
        others: Counter[str] = Counter()
        for obj in [reference() for reference in list(one.entries.values())]:
            thread = getattr(obj, "_thread", None)
            if obj is None:
                pass
            elif _is_a(obj, "managers", "BaseProxy"):
                address = _address(getattr(getattr(obj, "_token", None), "address", "?"))
                proxies.setdefault(address, Counter())[type(obj).__name__] += 1
            elif _is_a(obj, "queues", "Queue") and thread is not None and thread.is_alive():
                yield _fixed(
                    "queue",
                    str(thread.name),
                    f"what the child puts into a {type(obj).__name__} would be lost: its feeder "
                    "thread stays with the parent",
                    "the child's queue starts a feeder of its own",
                    _name(obj),
                    "What the parent has put, and its feeder has not yet sent, is sent by the "
                    "parent.",
                )
            else:
                others[_name(obj)] += 1
        for finalizer in list(one.finalizers.values()):
            yield from _manager(finalizer)
        for address, types in proxies.items():
            yield _fixed(
                "proxy",
                address,
                f"manager proxies ({_counted(types)}) would share their connection with the child",
                "the child's proxies open connections of their own",
                f"manager at {address}",
                "Replies of the manager reach the wrong process, and both hang or fail.",
            )
        if others:
            yield _fixed(
                "after-fork-callbacks",
                ", ".join(sorted(others)),
                f"{sum(others.values())} after-fork callbacks would not be run by os.fork()",
                "they run in every child, once",
                "multiprocessing.util:register_after_fork",
                f"They belong to {_counted(others)}.",
            )


def _manager(finalizer: Any) -> Iterator[Hazard]:
    callback = getattr(finalizer, "_callback", None)
    for family in _families.NAMES:
        manager = _loaded.attribute(f"{family}.managers", "BaseManager")
        if callback is not None and callback is getattr(manager, "_finalize_manager", None):
            process, address = finalizer._args[:2]
            yield _fixed(
                "manager",
                str(process.name),
                f"manager {process.name!r} would be shut down by a child that ends by sys.exit()",
                "the child starts without the parent's finalizers",
                f"manager at {_address(address)}, pid {process.pid}",
                "The child inherits the finalizer that ends the manager's process.",
            )
            return


def _is_a(obj: Any, submodule: str, name: str) -> bool:
    classes = (_loaded.attribute(f"{family}.{submodule}", name) for family in _families.NAMES)
    return any(isinstance(cls, type) and isinstance(obj, cls) for cls in classes)


def _name(obj: Any) -> str:
    return f"{type(obj).__module__}:{type(obj).__qualname__}"


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


# Each with the name and the modules of its step: while none of them is loaded there is no state.
HEALED = (
    ("imports", (), _of_imports),
    ("resource tracker", _tracker.TrackerStep.modules, _of_trackers),
    ("children", _families.submodules("process"), _of_children),
    ("fork server", _families.submodules("forkserver"), _of_fork_servers),
    ("temporary directories", ("tempfile",), _of_directories),
    ("event loops", ("asyncio.selector_events", "uvloop.loop"), _of_loops),
    ("pools", _families.submodules("pool"), _of_pools),
    ("process executors", ("concurrent.futures.process",), _of_process_executors),
    ("thread executors", ("concurrent.futures.thread",), _of_thread_executors),
    ("registry", _families.submodules("util"), _of_registries),
)
