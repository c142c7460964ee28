"""An HTTP server and an HTTPS one that say the path, and the number of the connection."""

from __future__ import annotations

import itertools
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

numbers = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    wbufsize = 65536
    timeout = 60

    def setup(self) -> None:
        self.number = next(numbers)
        super().setup()

    def do_GET(self) -> None:
        # Another request on this connection would come in meanwhile.
        time.sleep(2 if self.path == "/slow" else 0.03)
        body = f"{self.path.strip('/')} {self.number}".encode()
        if self.path == "/big":
            body = b"x" * 4_000_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """What clients send that is no request is no fault of the server."""


class TLSServer(Server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def finish_request(self, request: object, client_address: object) -> None:
        # Here, in the thread of the connection, and not as it is accepted.
        request.settimeout(60)  # type: ignore[attr-defined]
        wrapped = self.context.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
        super().finish_request(wrapped, client_address)  # type: ignore[arg-type]


TLSServer.context.load_cert_chain(sys.argv[1])
plain, tls = Server(("127.0.0.1", 0), Handler), TLSServer(("127.0.0.1", 0), Handler)
threading.Thread(target=plain.serve_forever, daemon=True).start()
print("ports", plain.server_address[1], tls.server_address[1], flush=True)
tls.serve_forever()
