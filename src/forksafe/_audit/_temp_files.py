"""``NamedTemporaryFile`` objects, whose files a child deletes when it lets go of its copy.

The directories are the business of a step; of the files only the child of `forked()` lets go
without deleting them, since it ends by ``os._exit``.
"""

from __future__ import annotations

from .._hazard import ACTION, Hazard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._scene import Scene

_CLOSER = "tempfile:_TemporaryFileCloser"
WANTED = (_CLOSER,)


def find(scene: Scene) -> Iterator[Hazard]:
    """Yield what is found of it."""
    for closer in scene.heap.instances(_CLOSER):
        values = vars(closer)
        # 3.12 has both: with delete_on_close=False a closed file is still there to be deleted.
        done = values.get("cleanup_called" if hasattr(type(closer), "cleanup") else "close_called")
        if values.get("delete") and not done:
            name = str(values.get("name"))
            yield Hazard(
                "temporary-file",
                ACTION,
                f"{name} would be deleted by a child that ends by sys.exit() or at its program's "
                "end, or that drops the NamedTemporaryFile",
                subject=name,
                detail=(
                    "The child of forked() leaves it at its end. After safe_fork() and under "
                    "install() the object is inherited, and what it does at its end with it."
                ),
                remedy="fork with forked(), end the child with os._exit(), or use delete=False",
                where="tempfile:NamedTemporaryFile",
            )
