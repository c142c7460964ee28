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
from ._fork_event._typing import Any, Callable

try:
    import uwsgi  # type: ignore[import-untyped] # made by uWSGI, in its own processes
except ImportError:
    raise ImportError(
        "forksafe.uwsgi is for uWSGI's own processes, started by `uwsgi --import forksafe.uwsgi`; "
        "anywhere else call forksafe.install()"
    ) from None

__all__: list[str] = []

_NAME = "post_fork_hook"


def _post_fork() -> None:
    after_fork_in_child()
    if _theirs:
        _theirs[0]()


_theirs: list[Callable[[], object]] = []


class _Module(types.ModuleType):
    @property
    def post_fork_hook(self) -> Any:
        """The application's hook, called in every child after the reset."""
        if not _theirs:
            raise AttributeError(f"module {self.__name__!r} has no attribute {_NAME!r}")
        return _theirs[0]

    @post_fork_hook.setter
    def post_fork_hook(self, hook: Any) -> None:
        _theirs[:] = [hook]

    @post_fork_hook.deleter
    def post_fork_hook(self) -> None:
        _theirs.clear()


install()
_uwsgi: Any = uwsgi
if not isinstance(_uwsgi, _Module):
    _names = vars(_uwsgi)
    if _NAME in _names:
        _theirs.append(_names[_NAME])
    _uwsgi.__class__ = _Module
    _names[_NAME] = _post_fork
