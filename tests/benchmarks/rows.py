"""What is measured: each function is one row of the table, run by `run.py` in a fresh interpreter.

A row returns the samples of two sides, ``a`` and ``b``, of which the table gives the ratio b : a;
and those of `others`, which are measured in the same turns and drawn beside them.

Both sides of a row are measured in one loop, in turns (A B, B A, A B, ...). A machine that slows
down, a heap that grows, a cache that fills then weigh on both alike, and the ratio stays. That is
also why this is neither pyperf nor pytest-benchmark: these measure one side to its end and then the
other.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

Side = Callable[[], float]
WARM_UP = 5


def in_turns(sides: list[Side], samples: int) -> list[list[float]]:
    """Return the samples of each side, in seconds."""
    times: list[list[float]] = [[] for _ in sides]
    order = list(range(len(sides)))
    for number in range(-WARM_UP, samples):
        order.reverse()
        for index in order:
            value = sides[index]()
            if number >= 0:
                times[index].append(value)
    return times


def usual_imports() -> None:
    """Import what a server has: the state of all this is what the reset looks at."""
    import asyncio
    import concurrent.futures.process
    import concurrent.futures.thread
    import multiprocessing.managers
    import multiprocessing.pool
    import multiprocessing.popen_fork
    import multiprocessing.queues

    assert asyncio
    assert concurrent
    assert multiprocessing
    gc.collect()


class Forks:
    """One side: fork, let the child end at once, reap it. Counts page faults, too."""

    def __init__(self, fork: Callable[[], int], in_child: Callable[[], object] = int) -> None:
        self.fork = fork
        self.in_child = in_child
        self.faults: list[int] = []  # in the child
        self.own_faults: list[int] = []  # in the parent, by the fork and what came of it

    def __call__(self) -> float:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.perf_counter()
        pid = self.fork()
        if pid == 0:
            try:
                self.in_child()
            finally:
                os._exit(0)
        _, status, usage = os.wait4(pid, 0)
        elapsed = time.perf_counter() - start
        assert status == 0
        self.faults.append(usage.ru_minflt)
        self.own_faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        return elapsed


def two_lines() -> None:
    """Do in the child what is well known to help, and what multiprocessing does there."""
    from multiprocessing import util

    util._finalizer_registry.clear()  # type: ignore[attr-defined] # private: it is the rival
    util._run_after_forkers()  # type: ignore[attr-defined] # likewise


def _process() -> float:
    import multiprocessing

    start = time.perf_counter()
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - start


def _forks(samples: int, rival: str = "os.fork()") -> dict[str, Any]:
    """Measure all ways to fork side by side; the ratio is safe_fork() : `rival`."""
    import forksafe

    sides: dict[str, Side] = {
        "os.fork()": Forks(os.fork),
        "two lines": Forks(os.fork, two_lines),
        "Process": _process,
        "safe_fork()": Forks(forksafe.safe_fork),
    }
    times = dict(zip(sides, in_turns(list(sides.values()), samples)))
    faults = {
        name: (statistics.median(side.faults), statistics.median(side.own_faults))
        for name, side in sides.items()
        if isinstance(side, Forks)
    }
    told = ", ".join(f"{name} {c:.0f} + {p:.0f}" for name, (c, p) in faults.items())
    return {
        "a": times.pop(rival),
        "b": times.pop("safe_fork()"),
        "a is": rival,
        "b is": "safe_fork()",
        "others": times,
        "note": f"page faults, child + parent: {told}",
    }


def fork(samples: int, quick: bool) -> dict[str, Any]:
    """safe_fork() : os.fork(), one thread, the child exits at once."""
    usual_imports()
    return _forks(samples)


def fork_threads(samples: int, quick: bool) -> dict[str, Any]:
    """The same beside ten idle threads and two started executors."""
    usual_imports()
    stop = threading.Event()
    for _ in range(10):
        threading.Thread(target=stop.wait, daemon=True).start()
    executors = [ThreadPoolExecutor(2) for _ in range(2)]
    for executor in executors:
        executor.submit(int).result()
    return _forks(samples)


def fork_busy(samples: int, quick: bool) -> dict[str, Any]:
    """The same beside two threads that compute."""
    usual_imports()
    going = [True]

    def compute() -> None:
        while going:
            sum(range(100))

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    measured = _forks(max(samples // 8, 10))
    going.clear()
    for thread in threads:
        thread.join()
    return measured


def fork_1gib(samples: int, quick: bool) -> dict[str, Any]:
    """The same with a heap of 1 GiB."""
    usual_imports()
    objects = (2**26 if quick else 2**30) // 512
    heap = [bytes(512 - 33) for _ in range(objects)]  # 33: the header of a bytes object
    assert len(heap) == objects
    return _forks(samples)


def _proxies(samples: int, number: int) -> dict[str, Any]:
    import multiprocessing

    usual_imports()
    manager = multiprocessing.get_context("fork").Manager()
    proxies = [manager.dict() for _ in range(number)]
    for proxy in proxies:
        proxy["used"] = True  # connects
    measured = _forks(samples, "two lines")
    manager.shutdown()
    return measured


def fork_1_proxy(samples: int, quick: bool) -> dict[str, Any]:
    """1 manager's proxy: safe_fork() : os.fork() and the two lines."""
    return _proxies(samples, 1)


def fork_10_proxies(samples: int, quick: bool) -> dict[str, Any]:
    """10 proxies: the same."""
    return _proxies(samples, 10)


def fork_100_proxies(samples: int, quick: bool) -> dict[str, Any]:
    """100 proxies: the same."""
    return _proxies(max(samples // 8, 10), 100)


def process(samples: int, quick: bool) -> dict[str, Any]:
    """Process, start and join : os.fork(), for comparison."""
    usual_imports()
    a, b = in_turns([Forks(os.fork), _process], samples)
    return {"a": a, "b": b, "a is": "os.fork()", "b is": "Process"}


def forked(samples: int, quick: bool) -> dict[str, Any]:
    """A block of `forked` : Process, start and join."""
    usual_imports()

    import forksafe

    def block() -> float:
        start = time.perf_counter()
        with forksafe.forked():
            pass
        return time.perf_counter() - start

    a, b = in_turns([_process, block], samples)
    return {"a": a, "b": b, "a is": "Process", "b is": "forked()"}


class Registered:
    """Somebody with an after-fork callback."""

    def after_fork(self) -> None:
        """Do next to nothing."""


def callbacks(samples: int, quick: bool) -> dict[str, Any]:
    """10,000 callbacks: safe_fork() : os.fork() and the two lines."""
    from multiprocessing import util

    import forksafe

    usual_imports()
    objects = [Registered() for _ in range(10_000)]
    for each in objects:
        util.register_after_fork(each, Registered.after_fork)

    a, b = in_turns([Forks(os.fork, two_lines), Forks(forksafe.safe_fork)], samples)
    return {"a": a, "b": b, "a is": "two lines", "b is": "safe_fork()"}


def audit(samples: int, quick: bool) -> dict[str, Any]:
    """An audit of a million objects, in processor time : the 100 ms allowed."""
    import forksafe

    usual_imports()
    heap: list[list[Any]] = [[] for _ in range(1_000_000)]
    assert len(heap) == 1_000_000
    gc.collect()
    waited: list[float] = []

    def side() -> float:
        # There is no rival to share the machine's load with, so not the time on the wall.
        start, work = time.perf_counter(), time.process_time()
        forksafe.audit()
        work = time.process_time() - work
        waited.append(time.perf_counter() - start)
        return work

    a, b = in_turns([lambda: 0.1, side], samples)
    return {"a": a, "b": b, "note": f"on the wall: {statistics.median(waited) * 1e3:.1f} ms"}


def imports(samples: int, quick: bool) -> dict[str, Any]:
    """Import of forksafe : of multiprocessing.util, less the bare start."""
    # With what users have: compiled modules.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def start_of(code: str) -> Side:
        def side() -> float:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=env, check=True)
            return time.perf_counter() - start

        return side

    codes = ["pass", "import multiprocessing.util", "import forksafe"]
    bare, a, b = in_turns([start_of(code) for code in codes], samples)
    start = statistics.median(bare)
    return {
        "a": [value - start for value in a],
        "b": [value - start for value in b],
        "a is": "multiprocessing.util",
        "b is": "forksafe",
        "note": f"bare start: {start * 1e3:.1f} ms",
    }


PAGES = """
import gc
import os

HEAP = [{"number": [n]} for n in range(int(os.environ.get("HEAP", "0")))]


def answer():
    return "ok"


def private():
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        (dirty,) = [line.split()[1] for line in file if line.startswith("Private_Dirty:")]
    return f"{os.getpid()} {dirty}"


def app(environ, start_response):
    page = private() if environ["PATH_INFO"] == "/private" else answer()
    start_response("200 OK", [("Content-Length", str(len(page)))])
    return [page.encode()]
"""


@contextlib.contextmanager
def _gunicorn(
    directory: Path, config: str, workers: int = 1, heap: int = 0, source: str = PAGES
) -> Any:
    """Serve `source`, with `heap` objects preloaded; yield the address."""
    (directory / "benchmark_app.py").write_text(source)
    (directory / "benchmark.conf.py").write_text(config)
    address = directory / "sock"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", str(workers), "--chdir"]
    command += [str(directory), "--bind", f"unix:{address}", "--config"]
    command += [str(directory / "benchmark.conf.py"), "--log-level", "error", "benchmark_app:app"]
    server = subprocess.Popen(
        command,
        env={**os.environ, "HEAP": str(heap)},
        stderr=subprocess.DEVNULL,  # what breaks on purpose has much to say
        start_new_session=True,
    )
    try:
        _until_served(address)
        yield address
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)  # a worker that hangs is not waited for
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _get(address: Path, page: str = "/", timeout: float = 60) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(str(address))
        client.sendall(f"GET {page} HTTP/1.0\r\nHost: benchmark\r\n\r\n".encode())
        answer = b""
        while part := client.recv(4096):
            answer += part
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert " 200 " in head, answer
    return body


def _until_served(address: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            _get(address)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # there is no event to wait for: another program binds the address


def _request(address: Path) -> Side:
    def side() -> float:
        start = time.perf_counter()
        _get(address)
        return time.perf_counter() - start

    return side


INSTALL = "import forksafe\nforksafe.install()\n"


def request(samples: int, quick: bool) -> dict[str, Any]:
    """A request to a Gunicorn worker, with the hook : without."""
    # Where a server's processes lie in memory, and on which processor they run, weighs more than
    # anything else: two equal servers differ by a fifth. So a sample is one server's median.
    medians: dict[str, list[float]] = {"": [], INSTALL: []}
    for pair in range(4 if quick else 40):
        configs = list(medians)[:: 1 if pair % 2 else -1]
        with contextlib.ExitStack() as stack:
            sides = []
            for config in configs:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                sides.append(_request(stack.enter_context(_gunicorn(directory, config))))
            for config, times in zip(configs, in_turns(sides, samples)):
                medians[config].append(statistics.median(times))
    a, b = medians[""], medians[INSTALL]
    rates = [1 / statistics.median(side) for side in (a, b)]
    note = f"requests per second, one client: {rates[1]:.0f} with, {rates[0]:.0f} without"
    return {"a": a, "b": b, "a is": "without", "b is": "install()", "rates": rates, "note": note}


def freeze(samples: int, quick: bool) -> dict[str, Any]:
    """Private memory of a worker, 300 MB preloaded: freeze=True : without."""
    # 290 bytes for an object of PAGES; after a full collection in each of four workers.
    heap = 100_000 if quick else 1_000_000
    found: list[list[float]] = []
    for config in (INSTALL, INSTALL.replace("()", "(freeze=True)")):
        private: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as name, _gunicorn(Path(name), config, 4, heap) as one:
            end = time.monotonic() + 60
            with ThreadPoolExecutor(8) as clients:  # at once, or one worker may never be asked
                while len(private) < 4 and time.monotonic() < end:
                    for answer in clients.map(_get, [one] * 8, ["/private"] * 8):
                        pid, kilobytes = answer.split()
                        private[pid] = float(kilobytes)
        assert len(private) == 4, private
        found.append(list(private.values()))
    return {
        "a": found[0],
        "b": found[1],
        "a is": "install()",
        "b is": "install(freeze=True)",
        "unit": "kB",
    }


def served(samples: int, quick: bool) -> dict[str, Any]:
    """Requests answered right, of 200 by 8 clients at once : without forksafe."""
    found: list[list[float]] = []
    for config in ("", INSTALL):
        rounds: list[float] = []
        for _ in range(2 if quick else 5):
            with tempfile.TemporaryDirectory() as name:
                with _gunicorn(Path(name), config + "timeout = 5\n", 3, 0, SHARED) as address:
                    rounds.append(_right_answers(address, 200, 8))
        found.append(rounds)
    return {
        "a": found[0],
        "b": found[1],
        "a is": "without",
        "b is": "install()",
        "unit": "of 200",
    }


# A counter that all workers share; each number may be given once.
SHARED = """
import multiprocessing

manager = multiprocessing.get_context("fork").Manager()
lock = manager.Lock()
hits = manager.dict(total=0)
assert hits["total"] == 0


def app(environ, start_response):
    number = 0
    if environ["PATH_INFO"] == "/count":
        with lock:
            hits["total"] += 1
            number = hits["total"]
    page = str(number)
    start_response("200 OK", [("Content-Length", str(len(page)))])
    return [page.encode()]
"""


def _right_answers(address: Path, requests: int, clients: int) -> float:
    def ask(_: int) -> str:
        try:
            return _get(address, "/count", 3)
        except (OSError, AssertionError):
            return ""

    with ThreadPoolExecutor(clients) as pool:
        return float(len(set(pool.map(ask, range(requests))) - {""}))


# In the order of the table; with what the project allows itself.
ROWS: dict[Callable[[int, bool], dict[str, Any]], float | None] = {
    fork: 1.30,
    fork_threads: 1.40,
    fork_busy: None,
    fork_1gib: 1.02,
    fork_1_proxy: 1.05,
    fork_10_proxies: 1.05,
    fork_100_proxies: 1.05,
    process: None,
    forked: 1.00,
    callbacks: 1.05,
    audit: 1.00,
    imports: 0.50,
    request: 1.00,
    freeze: 0.25,
    served: None,
}

# Rows that need more than forksafe.
NEEDS = {request: "gunicorn", freeze: "gunicorn", served: "gunicorn"}


def main() -> None:
    """Measure one row; print it as JSON."""
    name, samples, quick = sys.argv[1:]
    (row,) = [row for row in ROWS if row.__name__ == name]
    print(json.dumps(row(int(samples), quick == "quick")))


if __name__ == "__main__":
    main()
