"""What the audit tells of libraries is true: each told as it is, and the remedy works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from fresh import LINUX, PYPY, Answer, Found, hazards, needs, value
from harness import WITHOUT_GIL, command_of


def in_child(work: Any, fork: Any = None) -> str:
    """Fork, and return what `work` returns in the child; ``hung`` after ten seconds."""
    import select

    import forksafe

    read, write = os.pipe()
    pid = (fork or forksafe.safe_fork)()
    if pid == 0:
        try:
            os.write(write, str(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], 10)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return os.read(read, 1000).decode() if ready else "hung"


# --- trio -----------------------------------------------------------------------------------------


def trio_threads(busy: str) -> Any:
    import threading

    import trio

    import forksafe

    async def idle() -> None:
        await trio.to_thread.run_sync(int)

    if not busy:
        trio.run(idle)
        child = in_child(lambda: trio.run(trio.to_thread.run_sync, int))
        return [child, *forksafe.audit()]
    started, go = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait()

    from trio.lowlevel import start_thread_soon

    start_thread_soon(work, lambda result: None)
    started.wait()
    answer = forksafe.audit()
    go.set()
    return ["", *answer]


@needs("trio", "trio")
@pytest.mark.parametrize(("busy", "severity"), [("", "advice"), ("busy", "action")])
def test_threads_of_trio(busy: str, severity: str) -> None:
    """One without work is forgotten by trio in the child, which gets another; work is lost."""
    child, *answer = value(trio_threads, busy)
    assert child == ("" if busy else "0")
    found = Answer(Found(**fields) for fields in answer).one("thread")
    assert found.severity == severity
    assert (found.library, found.where) == ("trio", "trio._core._thread_cache:WorkerThread._work")


# --- loguru ---------------------------------------------------------------------------------------


def loguru_writer() -> Any:
    import tempfile

    from loguru import logger

    import forksafe

    file = tempfile.mktemp()
    logger.remove()
    logger.add(file, enqueue=True, format="{message}")
    answer = forksafe.audit()
    in_child(lambda: logger.info("of the child"))
    logger.complete()
    with open(file) as lines:
        return [lines.read(), *answer]


@needs("loguru", "loguru")
def test_the_writer_of_loguru() -> None:
    """Children hand their records to it, through a queue between processes."""
    text, *answer = value(loguru_writer)
    assert text == "of the child\n"
    found = Answer(Found(**fields) for fields in answer).one("thread")
    assert (found.severity, found.library) == ("advice", "loguru")
    assert "through its own queue" in found.remedy


# --- prometheus_client ----------------------------------------------------------------------------


def prometheus() -> Any:
    import prometheus_client

    import forksafe

    prometheus_client.start_http_server(0, addr="127.0.0.1")
    return forksafe.audit()


@needs("prometheus_client", "prometheus-client")
def test_the_server_of_prometheus_client() -> None:
    """Its thread runs the standard library's code, and bears a name made up by threading."""
    found = hazards(prometheus).one("thread")
    assert (found.severity, found.library) == ("action", "prometheus_client")
    assert found.subject == "prometheus_client:BaseServer.serve_forever"
    assert "start_http_server() in one process only" in found.remedy


# --- watchdog -------------------------------------------------------------------------------------


def watchdog_threads() -> Any:
    import tempfile

    from watchdog.events import FileSystemEventHandler
    from watchdog.observers import Observer

    import forksafe

    observer = Observer()
    observer.schedule(FileSystemEventHandler(), tempfile.mkdtemp())
    observer.start()
    for pattern in ("thread:watchdog*", "*:watchdog"):
        assert not [h for h in forksafe.audit(allow=[pattern]) if h.kind == "thread"], pattern
    return forksafe.audit()


@needs("watchdog", "watchdog")
def test_subjects_are_those_of_the_last_run() -> None:
    """They are no numbers of threads, which depend on what else was started; a library is allowed.

    They come as the system lists the threads.
    """
    first, second = (hazards(watchdog_threads).of("thread") for _ in range(2))
    assert first
    assert {h.subject for h in first} == {h.subject for h in second}
    for found in first:
        assert found.subject.startswith("watchdog:")
        assert "Observer in one process" in found.remedy


# --- joblib ---------------------------------------------------------------------------------------


def joblib_executor() -> Any:
    import joblib
    from joblib.externals.loky import get_reusable_executor

    import forksafe

    work = [joblib.delayed(abs)(number) for number in range(4)]
    joblib.Parallel(2)(work)
    before = forksafe.audit()
    get_reusable_executor().shutdown(wait=True)  # as the remedy has it
    after = [h.kind for h in forksafe.audit() if h.severity == "action"]

    def in_the_child() -> Any:
        try:
            return joblib.Parallel(2)(work)
        finally:
            get_reusable_executor().shutdown(wait=True)

    return [after, in_child(in_the_child), *before]


@needs("joblib", "joblib")
@pytest.mark.skipif(PYPY, reason="loky's semaphores need CPython's _multiprocessing")
def test_the_executor_of_joblib() -> None:
    """One thing to do: what is told works. Its queue is not taken for the standard library's."""
    after, child, *answer = value(joblib_executor)
    assert (after, child) == ([], "[0, 1, 2, 3]")
    found = Answer(Found(**fields) for fields in answer)
    (action,) = found.actions
    assert (action.kind, action.library) == ("thread", "joblib (loky)")
    assert "shutdown(wait=True) before the fork" in action.remedy
    assert found.one("thread", "QueueFeederThread").severity == "fixed"
    assert not found.of("executor")


# --- gRPC -----------------------------------------------------------------------------------------


def serve_grpc() -> None:
    from concurrent import futures

    import grpc

    class Echo(grpc.GenericRpcHandler):  # type: ignore[misc] # it has no types
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Echo()])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()


def grpc_channel(support: str) -> Any:
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = support
    import grpc

    import forksafe

    command = command_of(serve_grpc, "")
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as server:
        assert server.stdin and server.stdout
        port = server.stdout.readline().strip()
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        call = channel.unary_unary("/any/method")
        assert call(b"parent", timeout=30) == b"parent"
        answer = forksafe.audit()
        server.stdin.close()
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = ""
    return answer


@needs("grpc", "grpcio")
@pytest.mark.skipif(not LINUX, reason="only Linux lists native threads")
@pytest.mark.parametrize(("support", "actions"), [("0", True), ("1", False)])
def test_grpc_that_is_prepared_for_forks(support: str, actions: bool) -> None:
    """Its native threads, its socket and its module need nothing where its fork support is on."""
    answer = hazards(grpc_channel, support)
    assert answer.of("native-thread")
    assert {h.severity for h in answer.of("native-thread")} == {"action" if actions else "advice"}
    assert bool(answer.of("module", "grpc")) is actions
    assert bool(answer.actions) is actions, answer
    (sock,) = answer.of("socket")
    assert ("GRPC_ENABLE_FORK_SUPPORT=1 is set" in sock.remedy) is not actions


# --- faulthandler and OpenBLAS --------------------------------------------------------------------


def watchdog_of_faulthandler(when: str) -> Any:
    import faulthandler

    assert "forksafe" not in sys.modules
    if when == "before":
        faulthandler.dump_traceback_later(1000)
    import forksafe

    if when == "after":
        faulthandler.dump_traceback_later(1000)
    return forksafe.audit()


@pytest.mark.skipif(not LINUX or PYPY, reason="a native thread, of CPython's faulthandler")
@pytest.mark.parametrize(("when", "severity"), [("before", "action"), ("after", "fixed")])
def test_the_watchdog_of_faulthandler(when: str, severity: str) -> None:
    """Set after the import of forksafe it is disarmed for the child; before, that is not known.

    It has no name, and is known by blocking every signal there is.
    """
    found = hazards(watchdog_of_faulthandler, when).one("native-thread", "faulthandler")
    assert found.severity == severity
    assert ("cancel_dump_traceback_later()" in found.remedy) is (severity == "action")


def openblas() -> Any:
    import numpy

    import forksafe

    numpy.ones((300, 300)) @ numpy.ones((300, 300))
    return forksafe.audit()


@needs("numpy", "numpy")
@pytest.mark.skipif(not LINUX, reason="only Linux lists native threads")
def test_threads_without_a_name_are_told_by_their_library() -> None:
    """Not by the name of the process, which is that of whatever command runs the audit."""
    answer = hazards(openblas)
    for found in answer.of("native-thread"):
        assert (found.subject, found.severity) == ("OpenBLAS", "advice")
        assert "without a name (most likely OpenBLAS)" in found.summary


# --- SQLAlchemy, and what the program has registered ----------------------------------------------


def async_engine(path: str) -> Any:
    import asyncio
    from multiprocessing.util import register_after_fork

    import sqlalchemy
    from sqlalchemy.ext.asyncio import create_async_engine

    import forksafe

    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    async def use() -> Any:
        async with engine.connect() as connection:
            await connection.execute(sqlalchemy.text("create table if not exists t (x)"))
            return id((await connection.get_raw_connection()).driver_connection)

    asyncio.run(use())
    before = forksafe.audit()
    remedy = next(h.remedy for h in before if h.kind == "connection-pool")
    start = remedy.index("multiprocessing.util.register_after_fork(")
    exec(remedy[start:].partition(".")[2].partition(".")[2], locals())
    assert register_after_fork
    after = forksafe.audit()
    child = in_child(lambda: len(str(asyncio.run(use()))) > 0)
    return [child, *before, None, *after]


@needs("aiosqlite", "aiosqlite")
@needs("sqlalchemy", "'sqlalchemy[asyncio]'")
def test_an_async_engine(tmp_path: Any) -> None:
    """The remedy is the line for its engine that is not; executed, it works, and is then known."""
    child, *found = value(async_engine, str(tmp_path / "my.db"))
    assert child == "True"
    where = found.index(None)
    before = Answer(Found(**f) for f in found[:where]).one("connection-pool")
    after = Answer(Found(**f) for f in found[where + 1 :]).one("connection-pool")
    assert before.severity == "action"
    assert before.remedy.startswith("await engine.dispose() before the fork")
    assert "register_after_fork(engine.sync_engine, " in before.remedy
    assert (after.severity, after.library) == ("advice", "SQLAlchemy")
    assert "your callback of register_after_fork() answers for it" in after.remedy


def registered(what: str, url: str) -> Any:
    import socket
    import threading
    from multiprocessing.util import register_after_fork

    import forksafe

    answers: dict[str, Any] = {}
    if what == "session":
        import requests

        answers[what] = session = requests.Session()
        session.get(url).raise_for_status()
        owner = [session]
        register_after_fork(session, requests.Session.close)
    elif what == "client":

        class Client:
            def __init__(self) -> None:
                self.sock = socket.create_connection(("127.0.0.1", int(url.split(":")[2][:-1])))
                register_after_fork(self, Client.connect)

            def connect(self) -> None:
                self.sock = socket.create_connection(self.sock.getpeername())

        owner = [Client()]
    else:

        class Reporter:
            def __init__(self) -> None:
                register_after_fork(self, Reporter.start)
                self.start()

            def start(self) -> None:
                go = threading.Event()
                self.thread = threading.Thread(target=go.wait, name="reporter", daemon=True)
                self.thread.start()

        owner = [Reporter()]
    answer = forksafe.audit()
    assert owner
    return answer


@needs("requests", "requests")
@pytest.mark.parametrize(
    ("what", "kind"), [("session", "socket"), ("client", "socket"), ("thread", "thread")]
)
def test_what_the_program_has_registered(http_server: str, what: str, kind: str) -> None:
    """An object with a callback in the after-fork registry, and what it leads to, is advice."""
    answer = hazards(registered, what, http_server)
    found = answer.one(kind)
    assert found.severity == "advice"
    assert "your callback of register_after_fork() answers for it" in found.remedy
    assert not answer.actions, answer


# --- files, processes and handlers ----------------------------------------------------------------


def at_its_end(how: str) -> Any:
    import dbm.dumb
    import gzip
    import tempfile
    import zipfile

    import forksafe

    path = tempfile.mkdtemp()
    packed = gzip.open(f"{path}/one.gz", "wb")
    packed.write(b"text")
    archive = zipfile.ZipFile(f"{path}/two.zip", "w")
    archive.writestr("name", b"text")
    table = dbm.dumb.open(f"{path}/three", "c")
    table["key"] = b"text"
    assert gzip.open(f"{path}/one.gz", "rb")  # which is not told
    answer = forksafe.audit()
    pid = os.fork()
    if pid == 0:
        if how == "sys.exit()":
            packed.close()  # as the interpreter does when it is collected
        os._exit(0)
    os.waitpid(pid, 0)
    packed.close()
    archive.close()
    table.close()
    with open(f"{path}/one.gz", "rb") as file:
        return [file.read().count(b"\x1f\x8b"), *answer]


def test_files_that_are_finished_at_their_end() -> None:
    """A child that ends as a program does finishes them as well: the archive is then another."""
    alone, *answer = value(at_its_end, "os._exit()")
    both, *_ = value(at_its_end, "sys.exit()")
    assert (alone, both) == (1, 2)
    found = Answer(Found(**fields) for fields in answer).of("open-file")
    assert {h.subject.rpartition("/")[2] for h in found} == {"one.gz", "two.zip", "three.dat"}
    assert {h.severity for h in found} == {"action"}


def a_process_and_a_handler() -> Any:
    import signal
    import subprocess

    import forksafe

    def stop(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, stop)
    with subprocess.Popen(["sleep", "60"]) as process:
        ended = subprocess.Popen(["true"])
        ended.wait()
        answer = forksafe.audit()
        child = in_child(process.poll)
        process.kill()
    return [child, *answer]


def test_a_process_of_subprocess_and_a_signal_handler() -> None:
    """In the child poll() says 0, although the process runs; one that has ended is not told."""
    child, *fields = value(a_process_and_a_handler)
    assert child == "0"
    answer = Answer(Found(**one) for one in fields)
    assert answer.one("child-process").subject == "sleep"
    handler = answer.one("signal-handler")
    assert (handler.subject, handler.severity) == ("SIGTERM", "advice")
    assert "a_process_and_a_handler.<locals>.stop" in handler.summary


def a_log_server() -> Any:
    import logging
    import logging.handlers
    import socket

    import forksafe

    server = socket.create_server(("127.0.0.1", 0))
    handler = logging.handlers.SocketHandler(*server.getsockname())
    logging.getLogger().addHandler(handler)
    logging.getLogger("mine").warning("it connects")
    return forksafe.audit()


def test_what_the_step_for_logging_mends() -> None:
    """The child's handlers connect anew."""
    answer = hazards(a_log_server)
    (sock,) = (h for h in answer.of("socket") if h.severity != "advice")
    assert (sock.severity, sock.library) == ("fixed", "logging.handlers.SocketHandler")
    assert not answer.actions, answer


# --- the main thread ------------------------------------------------------------------------------


def ends_of_a_child(how: str) -> Any:
    import threading

    status: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(3) if how == "os._exit" else sys.exit(3)
        status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    return status[0]


@pytest.mark.parametrize(("how", "status"), [("sys.exit", 0), ("os._exit", 3)])
def test_a_child_of_another_thread_ends_with_status_0(how: str, status: int) -> None:
    """That is why the audit's remedy for a lost main thread is os._exit()."""
    assert value(ends_of_a_child, how) == status


# --- no descriptors, no GIL -----------------------------------------------------------------------


def no_descriptor_left() -> Any:
    import resource
    import threading

    import forksafe

    audit = forksafe.audit  # which loads it
    threading.Thread(target=threading.Event().wait, name="mine", daemon=True).start()
    limit = len(os.listdir("/proc/self/fd")) + 5 if LINUX else 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    answer = audit()
    for fd in taken:
        os.close(fd)
    return answer


@pytest.mark.skipif(not LINUX, reason="elsewhere there is less that needs a descriptor")
def test_no_descriptor_left() -> None:
    """What needs one is unknown, with what to do; the rest is told."""
    answer = hazards(no_descriptor_left)
    assert answer.one("thread", "mine").severity == "action"
    for subject in ("descriptors", "native threads"):
        found = answer.one("unknown", subject)
        assert found.severity == "advice"
        assert "ulimit -n" in found.remedy


def busy_without_a_gil() -> Any:
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    import forksafe

    stop = threading.Event()

    def work(depth: int = 0) -> None:
        while not stop.is_set():
            if depth < 50:
                return work(depth + 1)

    with ThreadPoolExecutor(4) as executor:
        for _ in range(4):
            executor.submit(work)
        threading.Thread(target=work, name="busy", daemon=True).start()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            answer = forksafe.audit()
        stop.set()
    return answer


@pytest.mark.skipif(not WITHOUT_GIL, reason="frames are read where there is a GIL")
def test_no_gil() -> None:
    """The frames of threads that run are not read: that crashed. Their names and targets are."""
    answer = hazards(busy_without_a_gil)
    found = answer.one("thread", "busy")
    assert found.where == "program:busy_without_a_gil.<locals>.work"
    assert "It stands at" not in found.detail
    assert answer.one("executor").severity == "fixed"


# --- clean applications ---------------------------------------------------------------------------


def fastapi_app() -> Any:
    import asyncio

    import fastapi

    import forksafe

    app = fastapi.FastAPI()

    @app.get("/")
    def index() -> str:
        return "hello"

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    asyncio.run(app(scope, receive, send))
    assert [message.get("body") for message in sent] == [None, b'"hello"']
    return forksafe.audit()


def django_app(path: str) -> Any:
    import django
    from django.conf import settings

    import forksafe

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="program",
        SECRET_KEY="x",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    )
    django.setup()
    import types

    from django.http import HttpResponse
    from django.test import Client
    from django.urls import path as route

    urls: Any = types.ModuleType("program")
    urls.urlpatterns = [route("", lambda request: HttpResponse("hello"))]
    sys.modules["program"] = urls
    assert Client().get("/").content == b"hello"
    return forksafe.audit()


@needs("fastapi", "fastapi")
def test_a_clean_fastapi_application() -> None:
    """It has nothing to do, after a request that a thread has answered."""
    answer = hazards(fastapi_app)
    assert not answer.actions, answer


@needs("django", "django")
def test_a_clean_django_application(tmp_path: Any) -> None:
    """It has nothing to do, after a request."""
    answer = hazards(django_app, str(tmp_path / "db.sqlite3"))
    assert not answer.actions, answer
