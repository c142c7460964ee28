"""`safe_fork()`: the drop-in for ``os.fork``."""

from __future__ import annotations

import os
from _thread import get_ident
from itertools import starmap

from . import _hook
from ._fork_event._signals import SETMASK, sigmask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Literal

_os_fork: Any = getattr(os, "fork", None)


def safe_fork(
    *, on_hazard: Literal["ignore", "warn", "raise"] = "ignore", allow: Iterable[str] = ()
) -> int:
    """Fork this process, with a child as whole as one made by ``multiprocessing.Process``.

    A drop-in for ``os.fork``; ``os.fork = forksafe.safe_fork`` works. The child's reset has run,
    and its signal mask is the parent's again, when this returns. Under `install()` it does nothing
    that ``os.fork()`` would not do then.

    Args:
        on_hazard: What to do where `audit()` finds something that needs action. ``"warn"``: one
            `ForkHazardWarning`, from the parent after the fork, once for the same things.
            ``"raise"``: do not fork. ``"ignore"``: do not look.
        allow: Hazards that are accepted, as patterns: see `audit()`.

    Returns:
        0 in the child, the child's pid in the parent.

    Raises:
        OSError: The kernel refuses to fork (EAGAIN, ENOMEM), as ``os.fork`` raises it.
        NotImplementedError: This platform has no ``os.fork``.
        UnsafeForkError: There is something that needs action, and `on_hazard` is ``"raise"``; or
            ``"warn"``, and the warning filters turn the warning into an error.

    Source: fork(2); ``multiprocessing.process.BaseProcess._bootstrap``; cpython gh-101320.
    """
    if on_hazard == "ignore" or get_ident() in _hook.armed:
        return fork(None)
    from ._audit import _policy

    hazards = _policy.before(on_hazard, allow)
    pid = fork(None)
    if pid:
        _policy.after(hazards)
    return pid


def require() -> None:
    """Raise NotImplementedError where this platform cannot fork."""
    if not _hook.HAVE_FORK:
        raise NotImplementedError(
            "this platform has no os.fork(): use multiprocessing or subprocess instead"
        )


def fork(identity: Any, mask: Iterable[int] | None = None, made: list[int] | None = None) -> int:
    """Fork with the reset.

    Args:
        identity: What the child takes, unless None, as its process object.
        mask: For a caller who has blocked the signals: the signal mask that it restores itself.
        made: For a caller who must know of the child also where a handler raises in here: a list
            that takes what the fork returns.
    """
    if not _hook.HAVE_FORK:
        require()
    if _hook._reset is None:
        _hook.load()
    thread = get_ident()
    if thread in _hook.armed:
        return int(_os_fork())  # a wrapper around os.fork that ends here again
    # Looked up now: gevent and others replace os.fork, and their part must be done too.
    function = os.fork
    if function is safe_fork:
        function = _os_fork
    request = _hook.Request()
    if identity is not None:
        request.identity, request.mask = identity, mask
    _hook.armed[thread] = request
    try:
        if made is None:
            return int(function())
        # In C until the list has it: no handler runs in between.
        made.extend(starmap(function, ((),)))
        return made[0]
    finally:
        try:
            _hook.armed.pop(thread, None)
        finally:  # also if a handler raises in the line above: other threads take signals, too
            if mask is None and request.mask is not None:
                sigmask(SETMASK, request.mask)
