"""Gunicorn: importing this module turns forksafe on in the arbiter, and so in every worker.

One of::

    gunicorn -c python:forksafe.gunicorn --preload app:app

    from forksafe.gunicorn import *     # a line in gunicorn.conf.py

Gunicorn takes every name of the module it is given that is also the name of a setting. So this
module binds none, and exports none: it is `forksafe.install()` and nothing else. It does not import
Gunicorn, whose arbiter forks its workers, and whatever it starts beside them, by ``os.fork()``.
"""

from . import install as _install

__all__: list[str] = []

_install()
