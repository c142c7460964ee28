"""A program whose child tells whether it still has its parent's connection."""

import http.client
import os
import socket

listener = socket.create_server(("127.0.0.1", 0))
connection = http.client.HTTPConnection(*listener.getsockname())
connection.connect()
if __name__ == "__main__":
    pid = os.fork()
    if pid == 0:
        os._exit(int(connection.sock is not None))
    print("kept" if os.waitpid(pid, 0)[1] else "dropped")
