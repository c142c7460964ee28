"""Fork beside busy threads, thousands of times, and see whether each child is whole.

    python tests/stress/busy_threads.py [--style STYLE] [--forks N] [--seed N] [--threads N]

Some threads fork; as many others log to a file, print, use queues, executors, conditions, imports
and strptime. Each child does all of that, and waits on a queue in a new thread. A child that hangs
shows its stacks, and is killed. The last line says how many were right; exit status 1 unless all
were. STYLE: safe_fork, hook, forked; raw is os.fork(), for comparison.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import faulthandler
import importlib
import logging
import os
import queue
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import Any, Callable

PATIENCE = 20.0  # seconds until a child counts as hung
MODULES = ("colorsys", "chunk", "stringprep", "wave", "this_is_no_module", "sndhdr")


class Program:
    """The state that all threads use, and that each child is to find whole."""

    def __init__(self, directory: str) -> None:
        self.log = logging.getLogger("stress")
        self.log.propagate = False
        self.log.setLevel(logging.INFO)
        self.log.addHandler(logging.FileHandler(os.path.join(directory, "log")))
        self.queue: queue.Queue[int] = queue.Queue(4)
        self.condition = threading.Condition()
        self.semaphore = threading.Semaphore(2)
        self.executor = concurrent.futures.ThreadPoolExecutor(2)
        self.sink = open(os.path.join(directory, "out"), "w")
        self.stop = threading.Event()

    def work(self, seed: int) -> None:
        """Do all kinds of things until the end: what the threads do that do not fork."""
        dice = random.Random(seed)
        things = [
            lambda: self.log.info("from a thread %s", "x" * 300),
            lambda: print("from a thread", file=sys.stdout),
            lambda: self.put(1),
            self.get,
            self.notify,
            self.wait,
            lambda: self.executor.submit(int).result(5),
            lambda: datetime.datetime.strptime("2020-01-01", "%Y-%m-%d"),
            lambda: try_import(dice.choice(MODULES)),
            self.pass_the_semaphore,
        ]
        while not self.stop.is_set():
            dice.choice(things)()

    def put(self, item: int) -> None:
        try:
            self.queue.put(item, timeout=0.01)
        except queue.Full:
            pass

    def get(self) -> None:
        try:
            self.queue.get(timeout=0.01)
        except queue.Empty:
            pass

    def notify(self) -> None:
        with self.condition:
            self.condition.notify()

    def wait(self) -> None:
        with self.condition:
            self.condition.wait(0.01)

    def pass_the_semaphore(self) -> None:
        with self.semaphore:
            time.sleep(0.0005)

    def child(self) -> int:
        """Do in a child what the threads did; return the number of the first thing that failed."""
        self.log.info("from a child")
        print("from a child")
        sys.stdout.flush()
        datetime.datetime.strptime("2020-01-02", "%Y-%m-%d")
        try_import(MODULES[0])
        if self.executor.submit(os.getpid).result(5) != os.getpid():
            return 11
        while not self.queue.empty():  # the parent's items
            self.queue.get(timeout=5)
        taken: list[int] = []
        worker = threading.Thread(target=lambda: taken.append(self.queue.get()), daemon=True)
        worker.start()
        woken: list[int] = []
        ready = threading.Event()

        def wait() -> None:
            with self.condition:
                ready.set()
                self.condition.wait(5)
                woken.append(1)

        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        ready.wait(5)
        with self.condition:
            self.condition.notify()
        self.queue.put(1)
        worker.join(5)
        waiter.join(2)
        if taken != [1]:
            return 12
        if not woken or waiter.is_alive():
            return 13
        self.semaphore.release()
        if not self.semaphore.acquire(timeout=5):
            return 14
        return 0


def try_import(name: str) -> None:
    sys.modules.pop(name, None)
    try:
        importlib.import_module(name)
    except (ImportError, KeyError):
        pass  # not there in this Python; or another thread has just taken it out


def by_pid(fork: Callable[[], int], program: Program) -> int | None:
    pid = fork()
    if pid == 0:
        code = 99
        try:
            code = program.child()
        except BaseException:
            faulthandler.dump_traceback(all_threads=False)
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGUSR2)  # it shows its stacks
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def by_block(program: Program) -> int | None:
    import forksafe

    with forksafe.forked(check=False) as fork:
        if fork.is_child:
            sys.exit(program.child())
        try:
            return fork.wait(PATIENCE)
        except TimeoutError:
            fork.send_signal(signal.SIGUSR2)
            time.sleep(0.5)
            fork.kill()
            fork.wait()
            return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--style", default="safe_fork", choices=["safe_fork", "hook", "forked", "raw"]
    )
    parser.add_argument("--forks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    if options.style != "raw":
        import forksafe

        if options.style == "hook":
            forksafe.install()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    one: dict[str, Callable[[Program], Any]] = {
        "raw": lambda program: by_pid(os.fork, program),
        "hook": lambda program: by_pid(os.fork, program),
        "safe_fork": lambda program: by_pid(forksafe.safe_fork, program),
        "forked": by_block,
    }
    codes: Counter[int | None] = Counter()
    left = iter(range(options.forks))
    with tempfile.TemporaryDirectory() as directory:
        program = Program(directory)
        report, sys.stdout = sys.stdout, program.sink

        def fork_on() -> None:
            for _ in left:
                codes[one[options.style](program)] += 1

        busy = [
            threading.Thread(target=program.work, args=(options.seed * 1000 + n,))
            for n in range(options.threads)
        ]
        forking = [threading.Thread(target=fork_on) for _ in range(options.threads)]
        for thread in (*busy, *forking):
            thread.start()
        for thread in forking:
            thread.join()
        program.stop.set()
        for thread in busy:
            thread.join()
        sys.stdout = report
    wrong = {str(code): count for code, count in codes.items() if code != 0}
    print(f"{options.style}: {codes[0]} of {options.forks} children right; others: {wrong}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
