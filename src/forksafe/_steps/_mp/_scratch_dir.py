"""Row 9, its other half: the directory for sockets that multiprocessing made is the parent's.

``multiprocessing.util.get_temp_dir()`` makes one directory for a process, remembers it in
``current_process()._config["tempdir"]``, and deletes it when that process exits. A forked child
remembers it too: when the parent has ended (a daemon's has), every forkserver, ``Manager`` and
``Listener`` of the child fails with FileNotFoundError. The child makes one of its own on demand.

The children of ``Process`` are left alone: they share their parent's by design, and it waits for
them.
"""

from __future__ import annotations

from ..._fork_event import _families
from ..._fork_event._step import Idle, Step, expect
from ..._fork_event._who import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._fork_event import Forking


class ScratchDirStep(Step):
    name = "scratch directory"
    modules = _families.submodules("util")  # which makes the directory

    def note(self, fork: Forking) -> Idle | None:
        registries: list[Any] = [
            getattr(util, "_finalizer_registry", True) for util in _families.loaded(self.modules)
        ]
        if any(registries) or any("tempdir" in config for config in _configs(fork)):
            return None
        return Idle(*registries)  # making one registers its deletion

    def reset(self, fork: Forking, note: None) -> bool:
        done = False
        for config in _configs(fork):
            if config.get("tempdir") is not None:
                del config["tempdir"]
                done = True
        return done


def _configs(fork: Forking) -> list[dict[str, Any]]:
    launcher = fork.origin.family if isinstance(fork.origin, Launch) else None
    configs: list[dict[str, Any]] = []
    for module in _families.loaded(_families.submodules("process")):
        if module.__name__ != f"{launcher}.process":
            current = getattr(module, "_current_process", None)
            config = getattr(current, "_config", None)
            expect(isinstance(config, dict), f"{module.__name__}: no _config")
            assert config is not None
            configs.append(config)
    return configs
