"""A factory that starts a thread, which never ends."""

import threading

print("loading")


def create(name: str = "MyMetrics-1", *, daemon: bool = False) -> object:
    threading.Thread(target=threading.Event().wait, name=name, daemon=daemon).start()
    return object()


class Factory:
    create = staticmethod(create)
