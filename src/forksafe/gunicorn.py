"""Gunicorn: importing this module turns forksafe on in the arbiter, and so in every worker.

One of::

    gunicorn -c python:forksafe.gunicorn --preload app:app

    from forksafe.gunicorn import *     # a line in gunicorn.conf.py

Gunicorn reads its settings from the names in a module, so this module binds no such name.
"""

from __future__ import annotations

from sys import _getframe

from . import _hook
from . import install as _install
from ._fork_event._typing import Iterable

__all__: list[str] = []


def log_audit(*, allow: Iterable[str] = ()) -> None:
    """Have Gunicorn's log tell what the fork of the first worker breaks: for ``gunicorn.conf.py``.

    ::

        from forksafe.gunicorn import log_audit; log_audit()

    The audit looks at the very moment of that fork: after ``pre_fork`` Gunicorn (25.1 and later)
    stops a thread of its own. This replaces an ``on_hazard`` that `forksafe.install()` was given.

    Args:
        allow: Hazards that are accepted, as patterns: see `forksafe.audit()`.
    """
    import logging

    from ._audit import _policy
    from ._fork_event._threads import stack_of

    def is_first_worker() -> bool:
        # A preloaded application may fork as well: a Manager's server, for one.
        callers = ((f.f_code.co_name, f.f_globals.get("__name__")) for f in stack_of(_getframe()))
        is_worker = ("spawn_worker", "gunicorn.arbiter") in callers
        if is_worker:
            _hook.watch(None)
        return is_worker

    def tell(hazards: _policy.Hazards) -> None:
        log = logging.getLogger("gunicorn.error")
        for hazard in hazards:
            log.warning("forksafe: %s; %s", hazard, hazard.remedy)
        if not hazards:
            log.info("forksafe: the workers inherit nothing that needs action")

    _hook.watch(_policy.watcher("warn", allow, tell, is_first_worker))


_install()
