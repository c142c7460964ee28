"""A WSGI application with a client that is made, and used, when it is imported."""

from __future__ import annotations

from clients import make

client = make()


def app(environ: dict[str, str], start_response: object) -> list[bytes]:
    """Answer with what the client's server said to this very request."""
    token = environ["PATH_INFO"].strip("/")
    answer = client.ask(token)
    assert answer.token == token, f"{token} got the answer of {answer.token}"
    start_response("200 OK", [("Content-Type", "text/plain")])  # type: ignore[operator]
    return [answer.connection.encode()]
