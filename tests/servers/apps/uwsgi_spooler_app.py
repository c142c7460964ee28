"""A uWSGI application whose spooler uses what was made before the fork."""

from __future__ import annotations

import os
from pathlib import Path

import uwsgi  # type: ignore[import-not-found]
from preloaded import count, resets
from wsgi_app import PAGES, application  # noqa: F401 - for the server to find


def spooler(arguments: dict[bytes, bytes]) -> int:
    """Do one job, in the spooler's process."""
    part = Path(os.environ["SITE"], "spooler.part")
    part.write_text(f"{count()} {resets.count(os.getpid())}")
    part.rename(part.with_name("spooler"))
    return int(uwsgi.SPOOL_OK)


uwsgi.spooler = spooler
PAGES["/spool"] = lambda: uwsgi.spool({b"job": b"1"})
