"""Where in a function a lock is held, told by its instructions: once for each code object.

Two forms are known: the body of ``with LOCK``, and the ``try`` right behind ``LOCK.acquire()``
whose ``finally`` calls ``LOCK.release()``. LOCK is a name, or an attribute that a name leads to. An
instruction is inside if an exception raised there reaches the body's handler. The lock is held from
the call that takes it to the call that releases it. At these two calls it *may* be held, and so
throughout a body that stores in LOCK or releases it. Where a jump skips the taking, we say nothing.
"""

from __future__ import annotations

import dis
import sys
from _weakref import ref
from bisect import bisect_left
from itertools import groupby
from types import CodeType

from ._signals import signal_of
from ._typing import Any, Iterator

# Where a value is looked up ("global", "name" or "local"); the name; the attributes.
Path = tuple[str, ...]
# The offsets, the path to the lock; True: held, False: perhaps, None: somewhere here released.
Span = tuple[int, int, Path, Any]

_KINDS = {"LOAD_GLOBAL": "global", "LOAD_NAME": "name", "LOAD_DEREF": "local"}
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_RELEASES = ("release", "_release_save")  # the latter in Condition.wait()
# Beginnings of names: instructions that may call a function, and those that never fall through.
_CALLS = ("CALL", "WITH_EXCEPT_START")
_ENDS = ("RETURN_VALUE", "RETURN_CONST", "RAISE", "RERAISE", "JUMP_F", "JUMP_A", "JUMP_B")
_FILLERS = {"EXTENDED_ARG", "CACHE", "PRECALL", "NOT_TAKEN"}  # they do nothing
_JUMPS = {*dis.hasjrel, *dis.hasjabs}
_WITH = {dis.opmap.get(name) for name in ("SETUP_WITH", "BEFORE_WITH", "LOAD_SPECIAL")}
_table: Any = getattr(dis, "_parse_exception_table", None)  # since 3.11

# Functions left alone: up to 3.12 reading `f_locals` overwrites what locals() has returned.
_LOCALS = set() if sys.version_info >= (3, 13) else {"locals", "vars", "dir", "eval", "exec"}

# By id, since hashing a code object hashes its contents; an entry ends with its code object.
found: dict[int, tuple[Span, ...]] = {}
_references: dict[int, ref[CodeType]] = {}


def analyse(code: CodeType) -> tuple[Span, ...]:
    """Find where a function holds or releases locks; remember it in `found`."""
    names = code.co_names
    releases = any(name in names for name in _RELEASES)
    spans: tuple[Span, ...] = ((0, len(code.co_code), (), None),) if releases else ()
    if (releases or not _WITH.isdisjoint(code.co_code[::2])) and _LOCALS.isdisjoint(names):
        try:
            spans = tuple(Analysis(code).spans())
        except Exception as exc:  # code of no known compiler; os.fork() must not fail
            if signal_of(exc) is not None:
                raise
    key = id(code)
    found[key] = spans
    _references[key] = ref(code, lambda _: (found.pop(key, None), _references.pop(key, None)))
    return spans


def calls(code: CodeType, path: Path) -> list[int]:
    """Return the offsets at which what `path` leads to (a name, its attributes) is called."""
    found = Analysis(code)
    places = [place for place, name in enumerate(found.names) if name.startswith("CALL")]
    loads = [place for place, value in enumerate(found.values) if value[1:] == path]
    return [found.offsets[places[bisect_left(places, load)]] for load in loads]


class Analysis:
    """The instructions of a function, each by its place among them."""

    def __init__(self, code: CodeType) -> None:
        self.ops = [op for op in dis.get_instructions(code) if op.opname not in _FILLERS]
        self.names = [op.opname for op in self.ops]
        self.offsets = [*(op.offset for op in self.ops), len(code.co_code)]
        # The path of the value that each instruction leaves on the stack; empty if unknown.
        self.values: list[Path] = []
        for op in self.ops:
            value: Path = ()
            if kind := "local" if "LOAD_FAST" in op.opname else _KINDS.get(op.opname):
                value = (kind, op.argval[-1] if type(op.argval) is tuple else op.argval)
            elif op.opname in _ATTRIBUTE and self.values and self.values[-1]:
                value = (*self.values[-1], op.argval)
            self.values.append(value)
        # By the place of a release, the path to the lock; empty if unknown.
        self.releases = {
            place: self.values[place][:-1]
            for place, op in enumerate(self.ops)
            if op.opname in _ATTRIBUTE and op.argval in _RELEASES
        }
        jumps = ((place, op) for place, op in enumerate(self.ops) if op.opcode in _JUMPS)
        self.jumps = {place: bisect_left(self.offsets, op.argval) for place, op in jumps}
        self.handlers = self._by_table(_table(code)) if _table else self._by_blocks()

    def _by_table(self, table: Any) -> list[tuple[int, ...]]:
        inner = {here: entry.target for entry in table for here in range(entry.start, entry.end)}

        def handlers(offset: int) -> tuple[int, ...]:
            to = inner.get(offset)
            return () if to is None else (bisect_left(self.offsets, to), *handlers(to))

        return [handlers(op.offset) for op in self.ops]

    def _by_blocks(self) -> list[tuple[int, ...]]:
        around: dict[int, tuple[int, ...]] = {}
        todo: list[tuple[int, tuple[int, ...]]] = [(0, ())]
        while todo:
            place, blocks = todo.pop()
            while place not in around:
                around[place] = blocks
                name, target = self.names[place], self.jumps.get(place)
                if target is None:
                    blocks = blocks[name in ("POP_BLOCK", "POP_EXCEPT", "END_ASYNC_FOR") :]
                elif name.startswith("SETUP_"):
                    todo.append((target, (-1, *blocks)))  # a handler runs in a block of its own
                    blocks = (target, *blocks)
                else:
                    todo.append((target, blocks))
                if name.startswith(_ENDS):
                    break
                place += 1
        # Compilers up to 3.10 leave jumps in code that nothing reaches.
        self.jumps = {place: to for place, to in self.jumps.items() if place in around}
        return [around.get(place, ()) for place in range(len(self.ops))]

    def spans(self) -> Iterator[Span]:
        """Yield where locks are held, and then the locks that are released."""
        for place, (name, value) in enumerate(zip(self.names, self.values)):
            if name in ("SETUP_WITH", "BEFORE_WITH"):
                yield from self._held(place, place - 1, place + 1)
            elif name == "LOAD_SPECIAL" and self.ops[place].argrepr == "__enter__":
                # Since 3.14: the object, COPY, LOAD_SPECIAL, SWAP, SWAP, this one, CALL.
                yield from self._held(place + 1, place - 5, place + 2)
            elif value[2:][-1:] == ("acquire",) and self.names[place + 2] == "POP_TOP":
                inside = place + 3
                while self.names[inside] in ("NOP", "SETUP_FINALLY"):
                    inside += 1
                if self.names[place + 1].startswith("CALL") and not self.ops[place + 1].arg:
                    yield from self._held(place + 1, place - 1, inside, by_hand=True)
        for path in {*self.releases.values()}:
            yield 0, self.offsets[-1], path, None

    def _held(
        self, taking: int, operand: int, inside: int, by_hand: bool = False
    ) -> Iterator[Span]:
        """Yield where the lock is held: the call at `taking` takes it for the body at `inside`."""
        path = self.values[operand]
        entered = [one for one in self.handlers[inside] if one not in self.handlers[taking]]
        if by_hand:
            entered = [one for one in entered if self._releases(one, path)][-1:]
        if not path or not entered:
            return
        body = {place for place, around in enumerate(self.handlers) if entered[0] in around}
        sure = not any(self._changes(place, path) for place in body)
        held = dict.fromkeys((*range(taking + 1, inside), *body), sure)
        held[taking] = False
        # On every way out, to the first call: the table omits instructions that cannot raise.
        ways = [entered[0], *(to for place in body for to in self._next(place))]
        while ways:
            place = ways.pop()
            if place not in held:
                called = self.names[place].startswith(_CALLS)
                held[place] = sure and not called
                if not called:
                    ways += self._next(place)
        first = operand - len(path[2:])
        if any(first < to <= inside and place not in held for place, to in self.jumps.items()):
            return
        for state, run in groupby(range(len(self.ops)), held.get):
            if state is not None:
                places = [*run]
                yield self.offsets[places[0]], self.offsets[places[-1] + 1], path, state

    def _next(self, place: int) -> list[int]:
        following = [self.jumps[place]] if place in self.jumps else []
        return following if self.names[place].startswith(_ENDS) else [*following, place + 1]

    def _releases(self, handler: int, path: Path) -> bool:
        end = self.names.index("RERAISE", handler) if "RERAISE" in self.names[handler:] else None
        return (*path, "release") in self.values[handler:end]

    def _changes(self, place: int, path: Path) -> bool:
        """Tell whether this instruction may change what `path` leads to, or release that lock."""
        name, stored = self.names[place], self.ops[place].argval
        if name.startswith(("STORE_", "DELETE_")):
            stored = stored if type(stored) is tuple else (stored,)
            stored = stored[:1] if "LOAD" in name else stored
            return not {*(path[2:] if "_ATTR" in name else path[1:2])}.isdisjoint(stored)
        return self.releases.get(place) in (path, ())
