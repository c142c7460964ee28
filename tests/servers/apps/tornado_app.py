"""A tornado server that forks: ``tornado_app.py PORT``."""

from __future__ import annotations

import asyncio
import os
import sys

if "WITH_FORKSAFE" in os.environ:
    import forksafe

    forksafe.install()

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.process import fork_processes
from tornado.web import Application, RequestHandler
from wsgi_app import PAGES


class Page(RequestHandler):
    """Answers with what the page returns."""

    def get(self) -> None:
        self.write(str(PAGES[self.request.path]()))


sockets = bind_sockets(int(sys.argv[1]), "127.0.0.1")
fork_processes(3, max_restarts=100)


async def main() -> None:
    server = HTTPServer(Application([(r"/(?!loop).*", Page)]))
    server.add_sockets(sockets)
    # In one write: print() makes several where streams are unbuffered, and three workers speak.
    sys.stdout.write(f"worker {os.getpid()}\n")
    await asyncio.Event().wait()


asyncio.run(main())
