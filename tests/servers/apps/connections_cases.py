"""What else a child may do with what it inherits: each function is one program.

``NAME STYLE``; a case prints "ok" at its end. With the style ``plain`` there is no forksafe.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
import traceback
from typing import Any, Callable

import clients

import forksafe


def child(function: Callable[[], Any], *, end: str = "exit") -> None:
    """Run `function` in a forked child, and expect that it returns."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        if end == "exit":
            sys.exit(0)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"the child ended with {code}"


def raises(name: str, function: Callable[[], Any]) -> None:
    """Expect that `function` raises an exception whose class is called `name`."""
    try:
        function()
    except Exception as exc:
        assert type(exc).__name__ == name, repr(exc)
    else:
        raise AssertionError(f"no {name}")


def goodbyes() -> None:
    """The child closes all that it has inherited, as loudly as it can."""
    one, two, three, four = (
        clients.Psycopg2(),
        clients.Psycopg(),
        clients.RedisSingle(),
        clients.HttpClient(),
    )
    everybody = (one, two, three, four)
    before = [client.ask("a").connection for client in everybody]
    redis_socket = three.redis.connection._sock
    tls_socket = four.connection.sock

    def close() -> None:
        one.connection.close()
        two.connection.close()
        for what in (
            lambda: redis_socket.shutdown(2),
            lambda: redis_socket.send(b"QUIT\r\n"),
            tls_socket.unwrap,
        ):
            with contextlib.suppress(OSError, ValueError):
                what()
        three.redis.close()
        four.connection.close()

    for end in ("exit", "_exit"):
        child(close, end=end)
        assert [client.ask("b").connection for client in everybody] == before


def watch() -> None:
    """A pipeline that watches a key does not lose that in silence."""
    client = clients.Redis().redis
    client.set("forksafe", 1)
    pipeline = client.pipeline()
    pipeline.watch("forksafe")
    assert pipeline.get("forksafe") == "1"
    pipeline.multi()
    pipeline.set("forksafe", 2)
    child(lambda: raises("WatchError", pipeline.execute))
    assert pipeline.execute() == [True]

    other = clients.RedisAsync()

    async def begin() -> Any:
        pipeline = other.redis.pipeline()
        await pipeline.watch("forksafe")
        pipeline.multi()
        return pipeline.set("forksafe", 3)

    begun = other.run(begin())
    child(lambda: raises("WatchError", lambda: other.run(begun.execute())))
    assert other.run(begun.execute()) == [True]


def atomic() -> None:
    """In a block of Django's: all fails until it is left; then it connects anew."""
    django = clients.Django()
    from django.db import transaction
    from django.db.utils import Error

    before = django.ask("a").connection

    def in_child() -> None:
        with transaction.atomic():
            pass

    with transaction.atomic():
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
            from django.db import connection

            with connection.cursor() as cursor:
                cursor.execute(clients.SQL, ["b"])
                assert str(cursor.fetchone()[1]) == before
        else:
            try:
                raises("TransactionManagementError", lambda: django.ask("b"))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
    if not pid:
        try:
            in_child()
            assert django.ask("c").connection != before
        except Error:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert django.ask("d").connection == before


def session() -> None:
    """A session of SQLAlchemy in a transaction: it fails, and works behind a rollback()."""
    engine = clients.SQLAlchemy().engine
    import sqlalchemy
    from sqlalchemy.orm import Session

    mine = Session(engine)
    ask = sqlalchemy.text("select pg_backend_pid()")
    before = mine.scalar(ask)

    def in_child() -> None:
        raises("OperationalError", lambda: mine.scalar(ask))
        mine.rollback()
        assert mine.scalar(ask) != before

    child(in_child)
    assert mine.scalar(ask) == before


def sqlite() -> None:
    """A database in memory is the child's own copy, and stays; a file is opened anew."""
    import sqlalchemy

    memory = sqlalchemy.create_engine("sqlite://")
    shared = sqlalchemy.create_engine("sqlite:///file:x?mode=memory&cache=shared&uri=true")
    name = os.path.join(os.environ["TMPDIR"], "x.db")
    file = sqlalchemy.create_engine(f"sqlite:///{name}", poolclass=sqlalchemy.QueuePool)
    for engine in (memory, shared, file):
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table t (x)"))
            connection.execute(sqlalchemy.text("insert into t values (1)"))

    def in_child() -> None:
        assert file.pool.checkedin() == 0
        for engine in (memory, shared, file):
            with engine.connect() as connection:
                assert connection.scalar(sqlalchemy.text("select x from t")) == 1

    child(in_child)
    assert file.pool.checkedin() == 1


def borrowed() -> None:
    """The one connection of a pool is borrowed by a thread, which the child has not."""
    import ssl

    import httpx
    import urllib3

    pool = urllib3.PoolManager(maxsize=1, block=True, ca_certs=clients.CA, retries=False)
    context = ssl.create_default_context(cafile=clients.CA)
    client = httpx.Client(verify=context, timeout=5, limits=httpx.Limits(max_connections=1))
    for ask in (
        lambda url: pool.request("GET", url, timeout=5, pool_timeout=3).data,
        lambda url: client.get(url).content,
    ):
        thread = threading.Thread(target=ask, args=(f"{clients.HTTPS}/slow",))
        thread.start()
        time.sleep(0.5)  # of the two seconds that it takes; nobody tells when it has begun

        def in_child(ask: Callable[[str], bytes] = ask) -> None:
            assert ask(f"{clients.HTTPS}/x").startswith(b"x ")

        child(in_child, end="_exit")
        thread.join()


def half_read() -> None:
    """A response of which the parent has read the half: the child gets nothing of the rest."""
    import http.client
    from urllib.parse import urlsplit

    import httpx

    connection = http.client.HTTPConnection(urlsplit(clients.HTTP).netloc)
    connection.request("GET", "/big")
    response = connection.getresponse()
    client = httpx.Client()
    with client.stream("GET", f"{clients.HTTP}/big") as streamed:
        chunks = streamed.iter_raw()
        got = len(next(chunks)), len(response.read(1000))

        def in_child() -> None:
            raises("IncompleteRead", response.read)
            raises("RemoteProtocolError", lambda: list(chunks))

        child(in_child)
        assert got[0] + sum(map(len, chunks)) == got[1] + len(response.read()) == 4_000_000


def half_read_async() -> None:
    """The same with httpx's AsyncClient, in a loop that both go on with."""
    import asyncio

    import httpx

    run = asyncio.new_event_loop().run_until_complete
    client = httpx.AsyncClient()
    request = client.build_request("GET", f"{clients.HTTP}/big")
    chunks = run(client.send(request, stream=True)).aiter_raw()
    got = len(run(chunks.__anext__()))

    async def rest() -> int:
        return sum([len(chunk) async for chunk in chunks])

    child(lambda: raises("RemoteProtocolError", lambda: run(rest())))
    assert got + run(rest()) == 4_000_000


def unknown() -> None:
    """Where a library has changed, it is told; what is known is let go of all the same."""
    strange, good = clients.HttpClient(), clients.RedisSingle()
    del strange.connection._HTTPConnection__response
    before = good.ask("a").connection

    def in_child() -> None:
        told = forksafe.last_reset()
        assert told is not None
        assert told["connections"] == (
            "unknown layout: HTTPSConnection has no _HTTPConnection__response"
        ), told
        assert good.ask("b").connection != before
        with contextlib.suppress(BrokenPipeError):  # where TLS has something left to say
            assert strange.connection.sock.recv(1) == b""  # cut, though not forgotten

    child(in_child)
    assert good.ask("c").connection == before


def frozen() -> None:
    """The program itself has called gc.freeze()."""
    client = clients.SQLAlchemy()
    gc.freeze()
    before = client.ask("a").connection
    count = gc.get_freeze_count()

    def in_child() -> None:
        assert client.ask("b").connection != before

    for _ in range(3):
        child(in_child)
        assert gc.get_freeze_count() > count - 5000
    assert client.ask("c").connection == before


def looks() -> None:
    """The heap is looked at where such a library is loaded, and else not."""
    seen = []
    sys.addaudithook(lambda event, _: seen.append(event) if event == "gc.get_referrers" else None)
    assert not {"http.client", "redis", "sqlalchemy"} & sys.modules.keys()
    child(lambda: None)
    assert seen == []
    import http.client  # noqa: F401 - it is there

    child(lambda: None)
    assert seen == ["gc.get_referrers"]
    forksafe.install(drop_connections=False)
    child(lambda: None)
    assert seen == ["gc.get_referrers"]


def tuples() -> None:
    """Threads that are at work on tuples: whoever holds one of these has them fail."""
    import http.client

    ballast = [{number: [number]} for number in range(200_000)]
    here = http.client.HTTPConnection("127.0.0.1")
    errors: list[BaseException] = []
    stop = threading.Event()

    def slowly() -> Any:
        for number in range(50):
            time.sleep(0)
            yield number

    def work() -> None:
        while not stop.is_set():
            try:
                tuple(slowly())
            except BaseException as exc:
                errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        child(lambda: None, end="_exit")
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == [], errors
    assert ballast and here


def block() -> None:
    """``forked(drop_connections=True)``, without install()."""
    forksafe.uninstall()
    client = clients.SQLAlchemy()
    before = client.ask("a").connection
    for drop in (True, False):
        with forksafe.forked(drop_connections=drop) as fork:
            if fork.is_child:
                assert (client.ask("b").connection != before) == drop
    assert client.ask("c").connection == before


def descendants() -> None:
    """Forks of forks: each lets go of what its own parent had."""
    client = clients.SQLAlchemy()
    before = client.ask("a").connection

    def in_child() -> None:
        mine = client.ask("b").connection
        assert mine != before

        def in_grandchild() -> None:
            assert client.ask("c").connection not in (before, mine)

        child(in_grandchild, end="_exit")
        assert client.ask("d").connection == mine

    child(in_child)
    assert client.ask("e").connection == before


def amqp() -> None:
    """What kombu does to py-amqp's connections in a child shuts nothing down."""
    import socket

    from amqp.transport import TCPTransport

    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = TCPTransport(f"127.0.0.1:{listener.getsockname()[1]}", connect_timeout=5)
        transport.connect()
        peer, _ = listener.accept()
    peer.settimeout(5)
    assert peer.recv(100) == b"AMQP\0\0\x09\1"
    child(transport.close)
    transport.write(b"still here")
    assert peer.recv(100) == b"still here"


name, style = sys.argv[1:]
if style == "drop":
    forksafe.install(drop_connections=True)
globals()[name]()
print("ok", flush=True)
os._exit(0)
