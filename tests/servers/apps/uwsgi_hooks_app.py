"""A uWSGI application that has post-fork hooks of its own, in each of the ways there are.

``ORDER`` tells which lines come first: those of the application, or the import of forksafe.
"""

from __future__ import annotations

import os

import uwsgi  # type: ignore[import-not-found]
from preloaded import counter, resets
from wsgi_app import PAGES, application  # noqa: F401 - for the server to find

seen: list[str] = []


def see(hook: str) -> None:
    """Remember that a hook ran, whether the process was whole by then, and used a proxy."""
    seen.append(f"{hook}:{resets.count(os.getpid())}:{counter['served']}")


def by_hand() -> None:
    see("by hand")


if os.environ["ORDER"] == "before":
    import forksafe.uwsgi

    assert not hasattr(uwsgi, "post_fork_hook")

if os.environ["HOOK"] == "assigned":
    uwsgi.post_fork_hook = by_hand
elif os.environ["HOOK"] == "decorated":
    from uwsgidecorators import postfork  # type: ignore[import-not-found]

    postfork(by_hand)
elif os.environ["HOOK"] == "chained":
    uwsgi.post_fork_hook = by_hand
    previous = uwsgi.post_fork_hook

    def chained() -> None:
        previous()
        see("chained")

    uwsgi.post_fork_hook = chained

if os.environ["ORDER"] == "after":
    import forksafe.uwsgi  # noqa: F401 - for the server to find
    import forksafe.uwsgi as again  # noqa: F401 - for the server to find

if os.environ["HOOK"] == "assigned":
    assert uwsgi.post_fork_hook is by_hand

PAGES["/seen"] = lambda: " ".join(seen)
