"""A WSGI application with a page for each of the things that it made at import."""

from __future__ import annotations

import os

import preloaded
from preloaded import counter, daemon, resets, tokens

PAGES = {
    "/count": preloaded.count,
    "/total": lambda: counter["served"],
    "/tokens": lambda: " ".join(sorted(tokens)),
    "/executor": preloaded.run_executor,
    "/loop": preloaded.run_loop,
    "/pid": os.getpid,
    "/daemon": lambda: daemon.pid,
    "/resets": lambda: resets.count(os.getpid()),
    "/references": preloaded.references,
    "/plain": lambda: "ok",
}


def app(environ: dict[str, str], start_response: object) -> list[bytes]:
    """Answer with what the page returns."""
    path = environ["PATH_INFO"]
    _, page, *rest = path.split("/")
    body = preloaded.token(rest[0]) if page == "token" else PAGES[path]()
    start_response("200 OK", [("Content-Type", "text/plain")])  # type: ignore[operator]
    return [str(body).encode()]


application = app
