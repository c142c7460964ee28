"""uWSGI: ``uwsgi --import forksafe.uwsgi ...`` makes its workers, mules and spoolers whole.

uWSGI forks in C, without at-fork hooks, but calls ``uwsgi.post_fork_hook`` in every child. An
application may assign its own, as ``uwsgidecorators`` does for ``@postfork``. So the hook that
uWSGI finds in the module's dictionary is the one of this file, which resets the process and then
calls the application's; and the attribute that Python code reads and assigns is the application's.

Source: ``uwsgi_python_post_fork`` in plugins/python/python_plugin.c of uWSGI 2.0.
"""

from __future__ import annotations

import types

from . import after_fork_in_child, install
from ._fork_event._typing import Any

try:
    import uwsgi  # type: ignore[import-untyped] # made by uWSGI, in its own processes
except ImportError:
    raise ImportError(
        "forksafe.uwsgi is for uWSGI's own processes, started by `uwsgi --import forksafe.uwsgi`; "
        "anywhere else call forksafe.install()"
    ) from None

__all__: list[str] = []


class _Module(types.ModuleType):
    post_fork_hook = property(
        lambda self: self._application_hook,
        lambda self, hook: setattr(self, "_application_hook", hook),
    )


def _post_fork() -> None:
    after_fork_in_child()
    getattr(_uwsgi, "post_fork_hook", int)()


install()
_uwsgi: Any = uwsgi
_names = vars(_uwsgi)
if "post_fork_hook" in _names and type(_uwsgi) is types.ModuleType:  # else that hook is ours
    _names["_application_hook"] = _names["post_fork_hook"]
_uwsgi.__class__ = _Module
_names["post_fork_hook"] = _post_fork
