"""At-fork hooks of the standard library that run after forksafe's, and what they would free.

In the child hooks run in the order in which they were registered. Where a module was imported
after forksafe, the locks that its hook frees are still held when the reset runs the program's
callbacks: by a thread that is gone, or by the fork itself. So the reset frees them first. That the
hook does it again does no harm.
"""

from __future__ import annotations

import sys

# What each module frees by, as a function or a lock. Those that are there now have their hooks.
LATER = tuple(
    (module, attribute)
    for module, attribute in (
        ("logging", "_after_at_fork_child_reinit_locks"),
        ("concurrent.futures.thread", "_global_shutdown_lock"),
    )
    if module not in sys.modules
)


def free_locks() -> None:
    """Do in the child what those hooks do, for the modules that are loaded."""
    for module, attribute in LATER:
        found = getattr(sys.modules.get(module), attribute, None)
        free = getattr(found, "_at_fork_reinit", found)
        if callable(free):
            free()
