"""The open file descriptors of this process, where the system lists them."""

from __future__ import annotations

import os

_LISTS = ("/proc/self/fd", "/dev/fd")  # Linux; macOS and the BSDs


def descriptors() -> list[int] | None:
    """Return the numbers of all open descriptors; None where there is no such list.

    0, 1 and 2 are left out: under systemd and the like they are sockets, and meant to be shared.
    """
    for directory in _LISTS:
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        found = sorted(int(name) for name in names if name.isdigit())
        # Without fdescfs(5), FreeBSD's /dev/fd shows these three whatever is open.
        if directory == "/dev/fd" and found[-1:] <= [2]:
            continue
        return [fd for fd in found if fd > 2]
    return None
