"""Gunicorn: importing this module turns forksafe on in the arbiter, and so in every worker.

One of::

    gunicorn -c python:forksafe.gunicorn --preload app:app

    from forksafe.gunicorn import *     # a line in gunicorn.conf.py

Gunicorn takes every name of the module it is given that is also the name of a setting, so this
module binds none, and exports none.
"""

from __future__ import annotations

import os as _os
import sys as _sys

from . import _hook
from . import install as _install
from ._fork_event._typing import Any, Iterable

__all__: list[str] = []


def log_audit(*, allow: Iterable[str] = ()) -> None:
    """Have Gunicorn's log tell what the fork of the first worker breaks: for ``gunicorn.conf.py``.

    ::

        from forksafe.gunicorn import log_audit; log_audit()

    The audit looks at the very moment of that fork: after ``pre_fork`` Gunicorn (25.1 and later)
    stops a thread of its own. It takes the place of an ``on_hazard`` that `forksafe.install()` was
    given.

    Args:
        allow: Hazards that are accepted, as patterns: see `forksafe.audit()`.
    """
    import logging

    from ._audit import AllowList, look
    from ._hazard import ACTION

    allowed = AllowList(allow)
    found: list[Any] = []

    def look_once() -> None:
        if _forks_a_worker():
            _hook.watch(None)
            found.append([hazard for hazard in look(allowed) if hazard.severity == ACTION])

    def tell() -> None:
        while found:
            log = logging.getLogger("gunicorn.error")
            for hazard in (hazards := found.pop()):
                log.warning("forksafe: %s; %s", hazard, hazard.remedy)
            if not hazards:
                log.info("forksafe: the workers inherit nothing that needs action")

    _hook.watch(look_once)
    _os.register_at_fork(after_in_parent=tell, after_in_child=found.clear)


def _forks_a_worker() -> bool:
    # A preloaded application may fork as well: a Manager's server, for one.
    frame: Any = _sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "spawn_worker":
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") == "gunicorn.arbiter"


_install()
