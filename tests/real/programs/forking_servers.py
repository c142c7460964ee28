"""Servers that fork for each request, and count them in the parent's dict, under its lock.

Arguments: ``tcp`` (``socketserver.ForkingTCPServer``) or ``http`` (``http.server`` with
``ForkingMixIn``), the number of clients, the number of requests that each makes, and the seconds
they wait for an answer. The clients are threads of a process of their own, forked before there is
anything to share.
"""

import http.client
import http.server
import os
import signal
import socket
import socketserver
import sys
import threading
from multiprocessing.managers import SyncManager

kind, clients, requests = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
TIMEOUT = float(sys.argv[4])


def count(counts, lock):
    with lock:
        counts["requests"] = counts["requests"] + 1
        return counts["requests"]


class LineHandler(socketserver.StreamRequestHandler):
    def handle(self):
        name = self.rfile.readline().strip()
        number = count(self.server.counts, self.server.lock)
        self.wfile.write(b"%s: %d\n" % (name, number))


class TCPServer(socketserver.ForkingTCPServer):
    request_queue_size = 64


class PageHandler(http.server.BaseHTTPRequestHandler):
    timeout = TIMEOUT

    def do_GET(self):
        name = self.path.strip("/").encode()
        page = b"%s: %d\n" % (name, count(self.server.counts, self.server.lock))
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args):
        pass


class HTTPServer(socketserver.ForkingMixIn, http.server.HTTPServer):
    request_queue_size = 64


def ask_tcp(address, name):
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        connection.sendall(name + b"\n")
        with connection.makefile("rb") as stream:
            return stream.readline()


def ask_http(address, name):
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request("GET", "/" + name.decode())
        response = connection.getresponse()
        return response.read() if response.status == 200 else b""
    finally:
        connection.close()


def run_clients(address):
    """Return the numbers that the answers told."""
    numbers, failed = [], []
    ask = ask_tcp if kind == "tcp" else ask_http

    def client(index):
        name = b"client%d" % index
        try:
            for _ in range(requests):
                who, _, number = ask(address, name).partition(b": ")
                if who != name:
                    raise ValueError(f"not the answer for {name!r}: {who!r}")
                numbers.append(int(number))
        except (OSError, ValueError) as exc:
            failed.append(repr(exc))

    threads = [threading.Thread(target=client, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit("clients failed: " + "; ".join(failed))
    return numbers


def main():
    server = (
        TCPServer(("127.0.0.1", 0), LineHandler)
        if kind == "tcp"
        else HTTPServer(("127.0.0.1", 0), PageHandler)
    )
    parent = os.getpid()
    tester = os.fork()
    if tester == 0:
        try:
            address = server.server_address
            server.socket.close()
            numbers = run_clients(address)
            if sorted(numbers) != list(range(1, clients * requests + 1)):
                sys.exit(f"miscounted: {sorted(numbers)}")
        except SystemExit as exc:
            if exc.code:
                print(exc.code, flush=True)
                os._exit(1)
        finally:
            os.kill(parent, signal.SIGTERM)
        os._exit(0)

    manager = SyncManager()
    manager.start()
    server.counts = manager.dict(requests=0)
    server.lock = manager.Lock()
    with server.lock:
        server.counts["requests"] = 0

    # shutdown() must not be called by the thread that serves.
    stop = threading.Thread(target=server.shutdown)
    signal.signal(signal.SIGTERM, lambda number, frame: stop.start())
    server.serve_forever(poll_interval=0.05)
    stop.join()
    _, status = os.waitpid(tester, 0)
    if status != 0:
        sys.exit("the clients were not content")
    server.server_close()
    if server.counts["requests"] != clients * requests:
        sys.exit("the parent counts {}".format(server.counts["requests"]))
    manager.shutdown()


if __name__ == "__main__":
    main()
