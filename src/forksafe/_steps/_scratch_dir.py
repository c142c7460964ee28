"""Row 9, its other half: the directory for sockets that multiprocessing made is the parent's.

``multiprocessing.util.get_temp_dir()`` makes one directory for a process, remembers it in
``current_process()._config["tempdir"]``, and deletes it when that process exits. A forked child
remembers it too: when the parent has ended (a daemon's has), every forkserver, ``Manager`` and
``Listener`` of the child fails with FileNotFoundError. The child makes one of its own on demand.

The children of ``Process`` are left alone: they share their parent's by design, and it waits for
them.
"""

from __future__ import annotations

from .. import _families
from .._origin import Launch
from .._step import Step, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._forking import Forking

__all__ = ["ScratchDirStep"]


class ScratchDirStep(Step):
    name = "scratch directory"
    modules = _families.submodules("process")

    def reset(self, fork: Forking, note: None) -> bool:
        launcher = fork.origin.family if isinstance(fork.origin, Launch) else None
        done = False
        for module in _families.loaded(self.modules):
            if module.__name__ == f"{launcher}.process":
                continue
            current = getattr(module, "_current_process", None)
            config = getattr(current, "_config", None)
            expect(isinstance(config, dict), f"{module.__name__}: no _config")
            assert config is not None
            if config.get("tempdir") is not None:
                del config["tempdir"]
                done = True
        return done
