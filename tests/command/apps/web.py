"""A WSGI application that has started a Manager, a Process and a thread when it is loaded."""

import multiprocessing
import time

from dirty import create

context = multiprocessing.get_context("fork")
shared = context.Manager().dict()
helper = context.Process(target=time.sleep, args=(60,), daemon=True)
helper.start()
create(daemon=True)


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
