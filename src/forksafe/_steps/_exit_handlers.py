"""Row 18: the child of `forked()` ends what is its own, and nothing of its parent's.

- Exit handlers: the first that the child registers is called last, and ends the process (`at_end`).
  The inherited handlers stay registered: ``atexit._clear()`` would drop what they alone hold.
- Handlers of logging: ``logging`` has a list of them, from which we note the parent's.
- Objects that do something at their end: ``gc.freeze()`` and ``gc.unfreeze()`` together move all
  that exists to the collector's oldest generation. What is younger at the end is the child's.

Without generations (PyPy, free-threaded builds, the incremental collector of 3.14.0 to 3.14.4) and
where the program has frozen its heap, only files over descriptors of the child's own are found.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from _io import _IOBase, _RawIOBase
from _weakref import ref

from .._fork_event import HEAP_TYPE, ForkEvent, Step, _who
from .._fork_event._typing import Any, Callable
from ._temp_dirs import identity

_GENERATIONS = hasattr(gc, "freeze") and "t" not in getattr(sys, "abiflags", "")
_UTILS = _who.submodules("util")
_Generator = type(_ for _ in ())
_Function = type(lambda: None)
_BY_ITSELF = 1000  # objects at most: 3.12 begins with some that are frozen
# Whether the program has frozen its heap. To count a million objects takes 10 ms.
_frozen = False
_IO_IS_STATIC = not _IOBase.__flags__ & HEAP_TYPE

# In the child of `forked()`: the last thing that it does; and what it inherited from the parent.
at_end: Callable[[], object] = int  # which does nothing
_inherited_log_handlers: list[Any] = []
_inherited_files: set[tuple[int, Any]] | None = None
_own_are_young = False
_grown_old: list[ref[Any]] = []


class ExitHandlersStep(Step):
    name = "exit handlers"
    looks = (":identity", ":launch")

    def note(self, fork: ForkEvent) -> Any:
        # Here and not in the child, where this walk would copy the page of each finalizer.
        return _parents()

    def reset(self, fork: ForkEvent, note: Any) -> bool:
        if fork.identity is None and fork.launch is None:
            return False
        if note is None or fork.beside_threads:  # another thread may have made some since
            note = _parents()
        utils, finalizers, handlers, generations = note
        if finalizers is not None:
            for info in finalizers:
                info.atexit = False
            # A ``Process`` clears atexit in its child, and ``finalize`` registers itself but once.
            sys.modules["weakref"].finalize._registered_with_atexit = False
        if fork.identity is not None:
            atexit.register(_end_own, utils)  # after all that the child registers
            for util in utils:
                util._exiting = False  # where the parent forks at its own end
            self._inherit(handlers, generations)
        return True

    def _inherit(self, log_handlers: list[Any], generations: bool) -> None:
        global _inherited_log_handlers, _inherited_files, _own_are_young
        _inherited_log_handlers, _own_are_young = log_handlers, generations
        _grown_old.clear()
        if generations:
            gc.freeze()
            gc.unfreeze()
            if _keep not in gc.callbacks:
                gc.callbacks.append(_keep)
        else:
            _inherited_files = _open_files()


def _end_own(utils: list[Any]) -> None:
    for util in utils:
        try:
            if getattr(util, "_finalizer_registry", util):  # each child not joined has an entry
                util._exit_function()
        except BaseException as exc:
            sys.excepthook(type(exc), exc, exc.__traceback__)
    at_end()


def _parents() -> tuple[list[Any], list[Any] | None, list[Any], bool]:
    """Return what the parent has for its end.

    The modules whose ``_exit_function`` ends a process, each function once; what
    ``weakref.finalize`` would run, None where it has no exit handler; the handlers of logging;
    whether the collector's generations can tell what is the child's.
    """
    global _frozen
    utils: dict[Any, Any] = {}
    for util in _who.loaded(_UTILS):
        utils.setdefault(getattr(util, "_exit_function", None), util)
    utils.pop(None, None)
    finalize: Any = getattr(sys.modules.get("weakref"), "finalize", None)
    finalizers = None
    if getattr(finalize, "_registered_with_atexit", False):
        finalizers = [info for info in list(finalize._registry.values()) if info.atexit]
    _frozen = _frozen or (_GENERATIONS and gc.get_freeze_count() > _BY_ITSELF)
    # The third threshold of the incremental collector is 0.
    generations = _GENERATIONS and not _frozen and gc.get_threshold()[2] > 0
    return list(utils.values()), finalizers, _all_log_handlers(), generations


def _all_log_handlers() -> list[Any]:
    return list(getattr(sys.modules.get("logging"), "_handlerList", ()))


def _keep(phase: str, info: dict[str, int]) -> None:
    """Note what has a finalizer before it is as old as what was inherited: in ``gc.callbacks``."""
    if phase == "start" and info["generation"]:
        _grown_old[:] = [each for each in _grown_old if each() is not None]
        for each in _with_finalizers(gc.get_objects(0) + gc.get_objects(1)):
            try:
                _grown_old.append(ref(each))
            except TypeError:
                pass  # its class has no room for weak references


def own() -> tuple[list[Any], list[Any]]:
    """Return what of this process has something to do at its end: handlers of logging, objects.

    The former are weak references, as ``logging.shutdown()`` takes them.
    """
    inherited = set(map(id, _inherited_log_handlers))
    handlers = [each for each in _all_log_handlers() if id(each) not in inherited]
    if _own_are_young:
        objects = gc.get_objects(0) + gc.get_objects(1)
        if _grown_old:
            objects += (each() for each in _grown_old)
            objects = list({id(each): each for each in objects}.values())
        return handlers, _with_finalizers(objects)
    if _inherited_files is None:
        return [], []  # nobody knows what was inherited
    files = {fd for fd, _ in _open_files() - _inherited_files}
    # A walk over the heap copies pages, so we make it only where it may find something.
    objects = gc.get_objects() if files else []
    objects = [each for each in objects if _IOBase in type(each).__mro__]
    return handlers, [each for each in objects if _descriptor(each) in files]


def _with_finalizers(objects: list[Any]) -> list[Any]:
    kinds = list(map(type, objects))
    ids = list(map(id, kinds))  # a metaclass says what it likes to being hashed
    wanted = {key for key, kind in dict(zip(ids, kinds)).items() if _has_finalizer(kind)}
    return [each for each, key in zip(objects, ids) if key in wanted] if wanted else []


def _has_finalizer(kind: type) -> bool:
    if not kind.__flags__ & HEAP_TYPE and not _IO_IS_STATIC:  # most types are from C
        return kind is _Generator
    for base in kind.__mro__:
        if base is _RawIOBase:
            return False  # it writes at once
        if base is _IOBase or base is _Generator:
            return True
        finalizer = vars(base).get("__del__")
        if finalizer is not None:  # one in C frees memory and descriptors, as os._exit() does
            return type(finalizer) is _Function
    return False


def _open_files() -> set[tuple[int, Any]]:
    numbers = map(int, os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else ())
    return {(fd, identity(fd)) for fd in numbers}


def _descriptor(file: Any) -> int | None:
    try:
        return file.fileno()  # type: ignore[no-any-return] # or whatever a class of the program has
    except Exception:  # closed, or none
        return None
