"""Which locks a thread holds, as its stack tells, against what the locks themselves say.

`sweep` runs a function and stops at each of its instructions. There it compares what `held_by` says
of the frame with the state of the locks: nothing is proven that is not held, ever; what is held and
not proven is named by the test.
"""

from __future__ import annotations

import dis
import gc
import sys
import threading
import time
import types
from _thread import RLock
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator

import pytest
from harness import WITHOUT_GIL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import Self

from forksafe._fork_event._lock_spans import Analysis, analyse, found
from forksafe._fork_event._with_bodies import Held, _resolve, free, held_by, load, settle

# The code to look at is odd on purpose.
# mypy: disable-error-code="redundant-expr,truthy-bool"

load()
pytestmark = pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="on PyPy the stacks are not read for locks"
)

needs_gil = pytest.mark.skipif(
    WITHOUT_GIL, reason="without a GIL the frames of other threads must not be read"
)

# Where a lock may be held or not, depending on whether the call is over.
_CALLS = ("CALL", "WITH_EXCEPT_START", "SETUP_WITH", "BEFORE_WITH")


def is_held(lock: Any) -> bool:
    """In a program of one thread: by that thread."""
    return bool(getattr(lock, "_is_owned" if isinstance(lock, RLock) else "locked")())


class Sweep:
    """What was seen at the instructions of one function.

    ``unsound``: where something was proven that was not held. ``missed``: where something was held
    and not proven, but for the calls that take and release; ``unseen``: and not named at all.
    """

    def __init__(self, code: types.CodeType, locks: list[Any]) -> None:
        self.code = code
        self.locks = locks
        self.names = {op.offset: op.opname for op in dis.get_instructions(code)}
        self.count = 0
        self.proven = 0
        self._seen: set[tuple[object, ...]] = set()
        self.unsound: set[tuple[int, str]] = set()
        self.missed: set[tuple[int, str]] = set()
        self.unseen: set[tuple[int, str]] = set()

    def look(self, frame: types.FrameType) -> None:
        place = frame.f_lasti, self.names.get(frame.f_lasti, "?")
        held = {id(lock) for lock in self.locks if is_held(lock)}
        if (place, *held) in self._seen:
            return
        self._seen.add((place, *held))
        told = list(held_by(frame))
        sure = {id(one.lock) for one in told if one.sure}
        self.count += 1
        self.proven += len(sure)
        if sure - held:
            self.unsound.add(place)
        if held - {id(one.lock) for one in told}:
            self.unseen.add(place)
        if held - sure and not place[1].startswith(_CALLS):
            self.missed.add(place)

    def trace(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if frame.f_code is not self.code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.look(frame)
        return self.trace

    def run(self, call: Callable[[], Any]) -> None:
        if sys.version_info >= (3, 12):  # where the trace function misses instructions
            monitoring = sys.monitoring

            def look(code: types.CodeType, offset: int) -> None:
                self.look(sys._getframe(1))

            monitoring.use_tool_id(4, "sweep")
            monitoring.register_callback(4, monitoring.events.INSTRUCTION, look)
            monitoring.set_local_events(4, self.code, monitoring.events.INSTRUCTION)
            try:
                call()
            finally:
                monitoring.set_local_events(4, self.code, 0)
                monitoring.free_tool_id(4)
        else:
            other = sys.gettrace()
            sys.settrace(self.trace)
            try:
                call()
            finally:
                sys.settrace(other)


def sweep(function: Callable[..., Any], locks: list[Any], *args: Any) -> Sweep:
    """Run `function` to its end, generators and coroutines too."""
    Analysis(function.__code__)  # raises where analyse() would hide that it failed
    swept = Sweep(function.__code__, locks)

    def run() -> None:
        try:
            result = function(*args)
            if isinstance(result, types.GeneratorType):
                list(result)
            elif isinstance(result, types.CoroutineType):
                while True:
                    result.send(None)
        except (StopIteration, ZeroDivisionError):
            pass

    swept.run(run)
    assert swept.count, "not an instruction was seen"
    assert not swept.unsound
    return swept


# The forms, as programs write them.


def work(*args: object) -> Any:
    return args or True


def fail() -> None:
    raise ZeroDivisionError


class Core:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.lock = make()


class Slotted:
    __slots__ = ("lock",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.lock = make()


class Cache(OrderedDict):  # type: ignore[type-arg] # whose own __getattribute__ is in C
    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.lock = make()


class Client:
    shared = threading.Lock()

    def __init__(self, make: Callable[[], Any]) -> None:
        self.lock = make()
        self.__private = make()
        self._core = Core(make)
        self.flag = False

    @property
    def locks(self) -> list[Any]:
        return [self.lock, self.__private, self._core.lock, self.shared]

    def simple(self) -> object:
        work()
        with self.lock:
            work()
        return work()

    def deep(self) -> None:
        with self._core.lock:
            with self.__private:
                work()

    @classmethod
    def of_class(cls) -> None:
        with cls.shared, Client.shared if False else MODULE_LOCK:
            work()

    def returns(self) -> object:
        with self.lock:
            if self:
                return work()
        return None

    def raises(self) -> None:
        with self.lock:
            try:
                fail()
            except ZeroDivisionError:
                with self._core.lock:
                    work()
                raise
            finally:
                work()

    def loops(self) -> None:
        for number in range(4):
            with self.lock:
                if number == 1:
                    continue
                while True:
                    with self._core.lock:
                        if work():
                            break
                if number == 2:
                    break
        else:
            work()

    def writes(self) -> None:
        with self.lock:
            self.flag = True
            if self.flag:
                self.flag = False

    def by_hand(self) -> object:
        self.lock.acquire()
        try:
            self.flag = True
            return work()
        finally:
            self.lock.release()

    def by_hand_in_loop(self) -> None:
        while not self.flag:
            self.lock.acquire()
            try:
                while True:
                    if work():
                        break
                self.flag = True
                fail()
            except ZeroDivisionError:
                work()
            else:
                work()
            finally:
                self.flag = True
                self.lock.release()

    def generates(self) -> Iterator[object]:
        with self.lock:
            for number in range(2):
                with self._core.lock:
                    yield number
                work()

    async def awaits(self) -> None:
        with self.lock:
            await turns()
            work()


@types.coroutine
def turns() -> Iterator[None]:
    yield
    yield


MODULE_LOCK = threading.Lock()
MODULE_CLIENT = Client(threading.Lock)


def of_module() -> None:
    with MODULE_LOCK:
        work()
    with MODULE_CLIENT.lock as entered, Client.shared:
        work(entered)


def local(lock: Any, other: Any) -> None:
    with lock as entered, other:
        work(copy := entered, other)  # which stores one and loads the other at once
        work(copy)
    with lock:
        pass
    work()


def of_closure(lock: Any) -> Callable[[], None]:
    def inner() -> None:
        with lock:
            work()

    return inner


def of_cell(lock: Any) -> object:
    with lock:
        return [work(lock) for _ in range(2)], lambda: lock


def one_after_the_other(*locks: Any) -> None:
    for lock in locks:
        with lock:
            work()


def many_arguments(lock: Any, *rest: Any) -> object:
    with lock:
        return work(*rest, **{"args": 1} if not rest else {})


OF_CLASS = vars(Client)["of_class"].__func__
METHODS = [
    Client.simple, Client.deep, OF_CLASS, Client.returns, Client.raises,
    Client.loops, Client.writes, Client.by_hand, Client.by_hand_in_loop, Client.generates,
    Client.awaits,
]  # fmt: skip


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_held_by_a_method(method: Callable[..., Any], make: Callable[[], Any]) -> None:
    """At each instruction what is held is proven, and nothing else is."""
    client = Client(make)
    first = Client if method is OF_CLASS else client
    swept = sweep(method, [*client.locks, MODULE_LOCK], first)
    assert swept.proven
    if method is OF_CLASS:
        return  # the second is chosen by an expression: the next test
    assert not swept.missed
    assert not swept.unseen


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_held_by_a_function(make: Callable[[], Any]) -> None:
    """Locks that are arguments, loop variables, of a closure or a module."""
    one, other = make(), make()
    locks = [one, other, MODULE_LOCK, MODULE_CLIENT.lock, Client.shared]
    for function, args in (
        (of_module, ()),
        (local, (one, other)),
        (of_closure(one), ()),
        (of_cell, (one,)),
        (one_after_the_other, (one, other)),
        (many_arguments, (one, other)),
    ):
        swept = sweep(function, locks, *args)
        assert swept.proven, function
        assert not swept.missed, function
        assert not swept.unseen, function


@pytest.mark.parametrize("holder", [Core, Slotted, Cache])
def test_where_the_attribute_lives(holder: Callable[..., Any]) -> None:
    """In the dictionary of an object, in a slot, in an object whose class derives from one in C."""
    thing = holder(threading.Lock)
    swept = sweep(Client.simple, [thing.lock], thing)
    assert swept.proven
    assert not swept.missed


def test_at_the_level_of_a_module() -> None:
    """There names are looked up in the dictionary of the module."""
    code = compile("with lock:\n  work()\nwork()\n", "a module", "exec")
    names = {"lock": threading.Lock(), "work": work}
    swept = Sweep(code, [names["lock"]])
    swept.run(lambda: exec(code, names))
    assert swept.proven
    assert not swept.unsound
    assert not swept.missed


def test_many_names() -> None:
    """A function with so many names that instructions take a prefix."""
    names = "\n".join(f"  g.a{number}" for number in range(300))
    lines = f"def f(g):\n{names}\n  with g.x300.y300:\n    work()\n{names}\n"
    namespace: dict[str, Any] = {"work": work}
    exec(lines, namespace)
    inner = types.SimpleNamespace(y300=threading.Lock())
    thing = types.SimpleNamespace(x300=inner, **{f"a{number}": 1 for number in range(300)})
    swept = sweep(namespace["f"], [inner.y300], thing)
    assert swept.proven
    assert not swept.missed


# What is not proven.


class Plain:
    lock: Any


def rebinds(lock: Any, other: Any) -> None:
    with lock:
        lock = other
        work()


def rebinds_to_what_was_entered(lock: Any, other: Any) -> None:
    with lock as lock:
        work()


def deletes(lock: Any, other: Any) -> None:
    with lock:
        del lock
        work()


def rebinds_in_a_loop(lock: Any, other: Any) -> None:
    with lock:
        for lock in (other,):  # noqa: B007 - that it is not used is the point
            work()


def replaces_the_attribute(lock: Any, other: Any) -> None:
    self = Plain()
    self.lock = lock
    with self.lock:
        self.lock = other
        work()


def releases_in_between(lock: Any, other: Any) -> None:
    with lock:
        lock.release()
        work()
        lock.acquire()


def chooses(lock: Any, other: Any) -> None:
    with lock if work() else other:
        work()


def falls_back(lock: Any, other: Any) -> None:
    with work() is None or lock:  # type: ignore[union-attr] # it is the lock
        work()


def takes_from_a_list(lock: Any, other: Any) -> None:
    locks = [lock]
    with locks[0]:
        work()


def calls(lock: Any, other: Any) -> None:
    with work(lock)[0]:
        work()


def stacks(lock: Any, other: Any) -> None:
    with ExitStack() as stack:
        stack.enter_context(lock)
        work()


@contextmanager
def managed(lock: Any) -> Iterator[None]:
    with lock:
        yield


def manages(lock: Any, other: Any) -> None:
    with managed(lock):
        work()


def takes_perhaps(lock: Any, other: Any) -> None:
    if work():
        lock.acquire()
    try:
        work()
    finally:
        if lock.locked():
            lock.release()


def tries(lock: Any, other: Any) -> None:
    lock.acquire(False)
    try:
        work()
    finally:
        lock.release()


def takes_inside(lock: Any, other: Any) -> None:
    try:
        lock.acquire()
        work()
    finally:
        lock.release()


def gives_away(lock: Any, other: Any) -> None:
    lock.acquire()
    try:
        lock.release()
        work()
    finally:
        lock.acquire()
        lock.release()


def releases_something(lock: Any, other: Any) -> None:
    with lock:
        other.acquire()
        work(other)[0].release()


def passes_on(lock: Any, other: Any) -> None:
    (lambda acquire: acquire())(lock.acquire)
    try:
        work()
    finally:
        lock.release()


def keeps(lock: Any, other: Any) -> None:
    lock.acquire()
    try:
        work()
    except ZeroDivisionError:
        work()


UNPROVEN = [
    rebinds, rebinds_to_what_was_entered, deletes, rebinds_in_a_loop, replaces_the_attribute,
    releases_in_between, chooses, falls_back, takes_from_a_list, calls, stacks, manages,
    takes_perhaps, tries, takes_inside, gives_away, releases_something, passes_on, keeps,
]  # fmt: skip


@pytest.mark.parametrize("function", UNPROVEN, ids=lambda function: function.__name__)
def test_left_unproven(function: Callable[..., Any]) -> None:
    """What the instructions do not show, and what may have changed, is not said to be held."""
    lock = threading.Lock()
    swept = sweep(function, [lock], lock, threading.Lock())
    assert swept.missed, "the lock was never held"
    assert not swept.proven


class Asked:
    """A lock that code of the program gives, and how often that code ran."""

    lock = threading.Lock()
    times = 0

    @classmethod
    def give(cls) -> Any:
        cls.times += 1
        return cls.lock


class WithProperty:
    @property
    def lock(self) -> Any:
        return Asked.give()


class WithGetattr:
    def __getattr__(self, name: str) -> Any:
        return Asked.give()


class WithGetattribute(Core):
    def __init__(self) -> None:
        super().__init__(threading.Lock)

    def __getattribute__(self, name: str) -> Any:
        return Asked.give()


class Descriptor:
    def __get__(self, thing: object, cls: object = None) -> Any:
        return Asked.give()


class WithDescriptor:
    lock = Descriptor()


class DeepDescriptor:
    lock = threading.Lock()

    def __get__(self, thing: object, cls: object = None) -> Any:
        return Core(threading.Lock)


class WithDeepDescriptor:
    core = DeepDescriptor()


class OfMeta(type):
    @property
    def lock(cls) -> Any:
        return Asked.give()


class WithMeta(metaclass=OfMeta):
    pass


class MetaGetattribute(type):
    def __getattribute__(cls, name: str) -> Any:
        return Asked.give()


class WithMetaGetattribute(metaclass=MetaGetattribute):
    lock = threading.Lock()


class Pretends:
    """What it is an instance of, its own code says."""

    @property  # type: ignore[misc] # as mocks have it
    def __class__(self) -> Any:
        Asked.give()
        return threading.Condition

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def told_in_body(thing: Any) -> list[Held]:
    with thing.lock:
        return [*held_by(sys._getframe())]


@pytest.mark.parametrize(
    "make",
    [
        WithProperty, WithGetattr, WithGetattribute, WithDescriptor, lambda: WithDescriptor,
        lambda: WithMeta, lambda: WithMetaGetattribute, lambda: Core(Pretends),
    ],
)  # fmt: skip
def test_runs_no_code_of_the_program(make: Callable[[], Any]) -> None:
    """An attribute that code of the program gives is not asked for."""
    thing = make()
    Asked.times = 0
    assert told_in_body(thing) == []
    assert Asked.times <= 1, "by the function itself"


class Compares(type):
    def __eq__(cls, other: object) -> bool:
        raise AssertionError

    __hash__ = type.__hash__


class Compared(metaclass=Compares):
    lock = threading.Lock()


class OwnCondition(threading.Condition):
    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass


def test_classes_with_rules_of_their_own() -> None:
    """Nothing is compared by a program's rules; a Condition may take no lock."""
    (one,) = told_in_body(Compared)
    assert one.lock is Compared.lock
    assert told_in_body(Core(OwnCondition)) == []

    def deep(thing: Any) -> list[Held]:
        with thing.core.lock:
            return [*held_by(sys._getframe())]

    assert deep(WithDeepDescriptor) == deep(WithDeepDescriptor()) == []


def test_does_not_disturb_locals() -> None:
    """Up to 3.12, reading a frame's variables would renew the dictionary that locals() gave."""
    lock = threading.Lock()

    def uses() -> Any:
        here = locals()
        here["lock"] = "changed"
        with lock:
            told = [one.lock for one in held_by(sys._getframe())]
        assert told == ([] if sys.version_info < (3, 13) else [lock])
        return here["lock"]

    assert uses() == "changed"


# Another thread, at a certain place.


class Thread:
    """A thread that stands where `target` waits for the event that it is given."""

    def __init__(self, target: Callable[..., Any], *args: Any) -> None:
        self.go_on = threading.Event()
        self.there = threading.Event()
        self._thread = threading.Thread(target=target, args=(self, *args), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.there.set()
        self.go_on.wait(30)

    @property
    def held(self) -> list[Held]:
        """Of the frames outside of `stop`."""
        assert self._thread.ident is not None
        frame: Any = sys._current_frames()[self._thread.ident]
        return list(held_by(frame))

    def of(self, lock: Any) -> list[bool]:
        return [one.sure for one in self.held if one.lock is lock]

    def until(self, state: list[bool], lock: Any) -> None:
        deadline = time.monotonic() + 20
        while self.of(lock) != state:
            assert time.monotonic() < deadline, self.of(lock)
            time.sleep(0.001)

    def __enter__(self) -> Self:
        assert self.there.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def inside(thread: Thread, lock: Any) -> None:
    with lock:
        thread.stop()


def called(thread: Any, lock: Any) -> None:
    with lock:
        sorted([3], key=lambda _: thread.stop())


def at_the_entry(thread: Thread, lock: Any) -> None:
    thread.there.set()
    with lock:
        pass


def at_the_hand(thread: Thread, lock: Any) -> None:
    thread.there.set()
    lock.acquire()
    try:
        work()
    finally:
        lock.release()


def behind(thread: Thread, lock: Any) -> None:
    with lock:
        pass
    thread.stop()


def waits(thread: Thread, condition: Any) -> None:
    with condition:
        thread.there.set()
        condition.wait(30)
        thread.stop()


def waits_for(thread: Thread, condition: Any) -> None:
    condition.acquire()
    try:
        thread.there.set()
        condition.wait_for(thread.go_on.is_set, 30)
    finally:
        condition.release()


@needs_gil
@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.Condition])
def test_in_the_body(make: Callable[[], Any]) -> None:
    """Held for sure, and where; also in what the body has called. A Condition is its lock."""
    taken = make()
    lock = getattr(taken, "_lock", taken)
    with Thread(inside, taken) as thread:
        assert thread.of(lock) == [True]
        (one,) = (one for one in thread.held if one.lock is lock)
        assert one.where == f"{__file__}:{inside.__code__.co_firstlineno + 2}"
        assert not one.of_standard_library
        assert one.foreign
    with Thread(called, taken) as thread:
        assert thread.of(lock) == [True]
    with Thread(behind, taken) as thread:
        assert thread.of(lock) == []


@needs_gil
@pytest.mark.parametrize("at", [at_the_entry, at_the_hand])
def test_at_the_entry(at: Callable[..., Any]) -> None:
    """A thread that waits for the lock may have it, and is not said to."""
    lock = threading.Lock()
    with Thread(inside, lock) as holder, Thread(at, lock) as waiter:
        waiter.until([False], lock)
        assert holder.of(lock) == [True]
        seen: dict[int, Any] = {}
        assert not settle(waiter.held, seen)
        assert settle([*waiter.held, *holder.held], seen)
        assert settle(waiter.held, seen), "it was seen before"
        holder.go_on.set()
    lock.acquire()
    with Thread(at, lock) as waiter:
        waiter.until([False], lock)
        assert not settle(waiter.held, {}), "this thread has it"
        assert [free(one) for one in waiter.held] == [False]
        lock.release()


@needs_gil
@pytest.mark.parametrize("make", [threading.RLock, threading.Lock])
def test_a_condition_that_is_waited_in(make: Callable[[], Any]) -> None:
    """Who waits has released the lock; not so another lock that is held around it."""
    condition = threading.Condition(make())
    lock: Any = condition._lock  # type: ignore[attr-defined] # private

    class Derived(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(timeout)

    derived = Derived(lock)
    other = threading.Lock()

    def around(thread: Thread) -> None:
        with other:
            waits(thread, derived)

    def by_lock(thread: Thread) -> None:
        with lock:
            thread.there.set()
            condition.wait(30)

    for target, args in ((waits, (condition,)), (waits_for, (condition,)), (by_lock, ())):
        with Thread(target, *args) as thread:
            thread.until([], lock)
            thread.go_on.set()
            with condition:
                condition.notify_all()
    with Thread(around) as thread:
        thread.until([], lock)
        assert thread.of(other) == [True]
        with derived:
            derived.notify_all()
            thread.until([False], lock)  # about to take it again
            thread.there.clear()
        assert thread.there.wait(20)
        assert thread.of(lock) == [True]


def test_all_of_a_wait() -> None:
    """From the first instruction of Condition.wait() to the last."""
    condition = threading.Condition(threading.Lock())
    lock: Any = condition._lock  # type: ignore[attr-defined] # private

    def wait() -> None:
        with condition:
            condition.wait(0.001)

    swept = Sweep(threading.Condition.wait.__code__, [lock])
    swept.run(wait)
    assert swept.count
    assert not swept.unsound
    assert not swept.unseen


@needs_gil
def test_at_the_exit() -> None:
    """A thread that has released the lock, and is still in the call: another one can have it."""
    condition = threading.Condition(threading.Lock())
    lock: Any = condition._lock  # type: ignore[attr-defined] # private
    leave = threading.Condition.__exit__.__code__

    def leaves(thread: Thread) -> None:
        def trace(frame: Any, event: str, arg: object) -> Any:
            if event == "return":
                thread.stop()
            return trace if frame.f_code is leave else None

        sys.settrace(trace)
        with condition:
            work()
        sys.settrace(None)

    with Thread(leaves) as thread, lock:
        assert thread.of(lock) == [False]


@needs_gil
def test_a_lock_that_was_replaced() -> None:
    """From outside: that what is there now is free shows it."""
    core = Core(threading.Lock)

    def stops(thread: Thread) -> None:
        with core.lock:
            thread.stop()

    with Thread(stops) as thread:
        assert thread.of(core.lock) == [True]
        core.lock = threading.Lock()
        assert thread.of(core.lock) == [False]


@needs_gil
def test_a_thread_that_moves_on_meanwhile() -> None:
    """While we look it leaves the body, and comes to that of a lock which this thread has."""
    one, two = threading.Lock(), threading.Lock()

    def loops(thread: Thread) -> None:
        for lock in (one, two):
            with lock:
                thread.stop()

    def trace(frame: types.FrameType, event: str, arg: object) -> None:
        if frame.f_code is _resolve.__code__ and "lock" in frame.f_locals["path"]:
            thread.go_on.set()
            while frame.f_locals["frame"].f_locals["lock"] is one:
                time.sleep(0.001)

    two.acquire()
    with Thread(loops) as thread:
        other = sys.gettrace()
        sys.settrace(trace)
        state = thread.of(two)
        sys.settrace(other)
        assert state == [False]
        two.release()


@needs_gil
def test_in_a_function_that_releases_it() -> None:
    """A function that the body has called lets the lock go for a while: nothing is proven."""
    lock = threading.Lock()

    def lets_go(thread: Thread) -> None:
        lock.release()
        thread.stop()
        lock.acquire()

    def lets_go_by_a_call(thread: Thread) -> None:
        work(lock)[0].release()
        thread.stop()
        lock.acquire()

    def lets_go_with_locals(thread: Thread) -> None:
        lock.release()
        thread.stop()
        locals()["lock"].acquire()

    def outer(thread: Thread, function: Callable[[Thread], None]) -> None:
        with lock:
            function(thread)

    for function in (lets_go, lets_go_by_a_call, lets_go_with_locals):
        with Thread(outer, function) as thread, lock:
            assert thread.of(lock) == [False]
            assert [free(one) for one in thread.held if one.lock is lock] == [False]
            assert lock.locked(), "it was this thread's"


@needs_gil
def test_while_it_is_traced() -> None:
    """A trace function, and a profiler, do not move the places."""
    lock = threading.Lock()

    def trace(frame: object, event: str, arg: object) -> Any:
        return trace

    threading.settrace(trace)
    threading.setprofile(trace)
    try:
        with Thread(inside, lock) as thread:
            assert thread.of(lock) == [True]
    finally:
        threading.settrace(None)
        threading.setprofile(None)
    with Thread(behind, lock) as thread:
        assert thread.of(lock) == []


@needs_gil
def test_locks_of_the_standard_library() -> None:
    """An Event's, as one that its own function takes."""
    event: Any = threading.Event()
    lock = event._cond._lock
    lock.acquire()

    def sets(thread: Thread) -> None:
        thread.there.set()
        event.set()

    with Thread(sets) as thread:
        thread.until([False], lock)
        (one,) = (one for one in thread.held if one.lock is lock)
        assert one.of_standard_library
        lock.release()


# Freeing.


def held(lock: Any, sure: bool) -> Held:
    return Held(lock, sure, sys._getframe())


def test_free_leaves_alone_what_is_this_threads() -> None:
    """A re-entrant lock of this thread, even if it is named as sure; a plain one that may be."""
    reentrant, plain = threading.RLock(), threading.Lock()
    with reentrant, plain:
        assert not free(held(reentrant, True))
        assert reentrant._is_owned()  # type: ignore[attr-defined] # private
        assert not free(held(plain, False))
        assert plain.locked()
    for lock in (reentrant, plain):
        assert not free(held(lock, True)), "nobody holds it"
        assert lock.acquire(False)
        lock.release()


@needs_gil
def test_free_frees_what_is_anothers() -> None:
    """Here in one process, to see what it goes by; whose thread is gone is tested with forks."""
    for make, sure in ((threading.Lock, True), (threading.RLock, True), (threading.RLock, False)):
        lock = make()
        with Thread(lambda thread, lock: (lock.acquire(), thread.stop()), lock):
            assert free(held(lock, sure))
            assert lock.acquire(False)
            assert not free(held(lock, False))
            lock.release()
    lock = threading.Lock()
    one = held(lock, False)
    assert one.foreign
    with Thread(lambda thread, lock: (lock.acquire(), thread.stop()), lock):
        assert free(one), "it was free at the look"


# What is remembered.


@pytest.mark.skipif(WITHOUT_GIL, reason="a free-threaded build keeps code for ever by itself")
def test_code_is_not_kept_alive() -> None:
    """What was found of a function goes with it; of two that are equal, each has its own."""
    source = "def f(lock):\n  with lock:\n    work()\n"
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    exec(source, one)
    exec(source, other)
    key, second = id(one["f"].__code__), id(other["f"].__code__)
    assert key != second
    assert one["f"].__code__ == other["f"].__code__
    assert analyse(one["f"].__code__) == analyse(other["f"].__code__) != ()
    assert key in found
    del one
    gc.collect()
    assert key not in found
    assert second in found


def test_whatever_there_is_can_be_analysed() -> None:
    """Every function of the modules that are loaded: no error, and no lock in most."""
    with_locks = 0
    seen = 0
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType):
            seen += 1
            with_locks += any(sure for *_, sure in Analysis(thing.__code__).spans())
            if seen == 2000:
                break
    assert seen > 1000
    assert with_locks


# Functions at random.

_PATHS = ("a", "self.b", "self.core.c", "d", "Box.e")
_BLOCKS = ("with", "with two", "hand", "if", "for", "while", "try", "finally")
_LEAVES = ("work", "fail", "return", "leave", "rebind", "gap", "nothing")


class Box:
    e: Any = None


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Source of a function ``f(self, a)`` that ends, and takes no plain lock twice."""
    number = 0

    def block(depth: int, taken: dict[str, str], loop: bool) -> list[str]:
        nonlocal number
        lines: list[str] = []
        for _ in range(draw(st.integers(1, 2))):
            kinds = _LEAVES if depth > 2 else (*_BLOCKS, *_LEAVES)
            kind = draw(st.sampled_from(kinds))
            open_ = [path for path in _PATHS if path not in taken]

            def inner(how: str = "", *paths: str, loop: bool = loop) -> list[str]:
                now = {**taken, **dict.fromkeys(paths, how)}
                return ["    " + line for line in block(depth + 1, now, loop)]

            if kind in ("with", "hand") and open_:
                path = draw(st.sampled_from(open_))
                if kind == "with":
                    entered = draw(st.sampled_from(("", " as x", " as self.x")))
                    lines += [f"with {path}{entered}:", *inner(kind, path)]
                else:
                    lines += [f"{path}.acquire()", "try:", *inner(kind, path)]
                    if draw(st.booleans()):
                        lines += ["except KeyError:", *inner("hand", path)]
                    lines += ["finally:", f"    {path}.release()"]
            elif kind == "with two" and len(open_) > 1:
                one, two = draw(st.permutations(open_))[:2]
                lines += [f"with {one}, {two}:", *inner("with", one, two)]
            elif kind == "if":
                lines += ["if flip():", *inner()]
                if draw(st.booleans()):
                    lines += ["else:", *inner()]
            elif kind == "for":
                lines += [f"for i{depth} in range(2):", *inner(loop=True)]
            elif kind == "while":
                number += 1
                lines += [f"n{number} = 2", f"while n{number}:", f"    n{number} -= 1"]
                lines += inner(loop=True)
            elif kind == "try":
                lines += ["try:", *inner(), "except ZeroDivisionError:", *inner()]
                if draw(st.booleans()):
                    lines += ["else:", *inner()]
            elif kind == "finally":
                # A `return` in there would swallow exceptions, and is warned of since 3.14.
                lines += ["try:", *inner(), "finally:", "    if flip():", "        work()"]
            elif kind == "return":
                lines += ["if flip():", "    return work()"]
            elif kind == "fail":
                lines += ["if flip():", "    fail()"]
            elif kind == "leave" and loop:
                lines += ["if flip():", "    " + draw(st.sampled_from(("break", "continue")))]
            elif kind == "rebind":
                path = draw(st.sampled_from(("a", "self.b", "self.core.c")))
                if taken.get(path) != "hand":
                    lines += [f"{path} = make()"]
            elif kind == "gap" and taken:
                path = draw(st.sampled_from(sorted(taken)))
                lines += [f"gap({path})"]
            else:
                lines += [draw(st.sampled_from(("work()", "work(a, self)", "x = work() or 1")))]
        return lines or ["work()"]

    body = block(0, {}, False)
    head = draw(st.sampled_from(("def", "async def", "generator", "closure")))
    if head == "generator":
        body = [*body, "yield"]
    elif head == "closure":
        body = ["def g(): return a, self", *body]
    start = "def" if head in ("generator", "closure") else head
    return "\n".join([f"{start} f(self, a):", *("    " + line for line in body), ""])


class Run:
    """One run of a random program: its names, and all locks that ever were in them."""

    def __init__(self, flips: list[bool], kinds: list[bool]) -> None:
        self.flips = flips
        self.kinds = kinds
        self.locks: list[Any] = []
        self.made = 0
        self.core = types.SimpleNamespace()
        Box.e = self.make()
        self.names: dict[str, Any] = {
            "work": work, "fail": fail, "flip": self.flip, "make": self.make, "gap": self.gap,
            "d": self.make(), "Box": Box,
        }  # fmt: skip
        self.thing = types.SimpleNamespace(b=self.make())
        self.thing.core = types.SimpleNamespace(c=self.make())

    def flip(self) -> bool:
        return bool(self.flips and self.flips.pop())

    def make(self) -> Any:
        self.made += 1
        lock: Any = (
            threading.RLock() if self.kinds[self.made % len(self.kinds)] else threading.Lock()
        )
        self.locks.append(lock)
        return lock

    def gap(self, lock: Any) -> None:
        """Let a lock go for a moment, where it is held at all: the name may have another by now."""
        if is_held(lock):
            lock.release()
            told = {id(one.lock) for one in held_by(sys._getframe()) if one.sure}
            assert is_held(lock) or id(lock) not in told
            lock.acquire()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    programs(),
    st.lists(st.booleans(), max_size=30),
    st.lists(st.booleans(), min_size=1, max_size=7),
)
def test_random_functions(source: str, flips: list[bool], kinds: list[bool]) -> None:
    """Nothing is proven that is not held; what is held is proven, unless it was rebound."""
    run = Run(flips, kinds)
    exec(source, run.names)
    swept = sweep(run.names["f"], run.locks, run.thing, run.make())
    assert not any(is_held(lock) for lock in run.locks)
    if "= make()" not in source:
        assert not swept.unseen, source
        assert not swept.missed, source


@needs_gil
def test_a_look_behind_which_a_thread_has_run_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else 1 of 1,000 children has a lock that the thread had just taken."""
    from forksafe import _reset
    from forksafe._fork_event import ForkEvent, _threads
    from forksafe._steps import STEPS

    first, second, moved = threading.Lock(), threading.Lock(), threading.Event()
    before, held = threading.Lock(), threading.Lock()
    first.acquire()
    second.acquire()

    def work() -> None:
        with before:
            there.set()
            first.acquire()
        with held:
            moved.set()
            second.acquire()

    there = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    there.wait()
    looks: list[_threads.Stacks] = []

    def look_and_let_it_run(again: bool) -> _threads.Stacks:
        looks.append(_threads.look(again))
        if len(looks) == 1:
            first.release()
            moved.wait()
        return looks[-1]

    monkeypatch.setattr(_reset, "look", look_and_let_it_run)
    event, interval = ForkEvent(), sys.getswitchinterval()
    try:
        _reset.note(event)
    finally:
        for take_back in (*event.undo, _threads.end_turn):
            take_back()
        second.release()
        thread.join()
    assert not any(one.lock is held for one in looks[0].held)
    assert event.stacks is looks[-1]
    assert any(one.lock is held and one.sure for one in looks[-1].held)
    assert sys.getswitchinterval() == interval
    noted = dict(event.notes or ())[[step.name for step in STEPS].index("locks")][1]
    assert held in [one.lock for one in noted[1]], "the step has the notes of the first look"
