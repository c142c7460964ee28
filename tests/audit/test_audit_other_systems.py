"""What a system does not tell is said to be unknown, and never to be absent."""

from __future__ import annotations

import os

import pytest

import forksafe
from forksafe._audit import _descriptors, _locks, _memory, _tasks
from forksafe._libraries import _native_owners


def found(kind: str) -> list[forksafe.Hazard]:
    return [hazard for hazard in forksafe.audit() if hazard.kind == kind]


def test_no_list_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets are looked for among the descriptors."""
    monkeypatch.setattr(_descriptors, "_LISTS", (os.devnull,))
    (hazard,) = found("socket")
    assert (hazard.severity, hazard.subject) == ("advice", "(unknown)")
    assert "cannot be seen" in hazard.summary


def test_a_list_of_three_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """FreeBSD's /dev/fd has no others where fdescfs(5) is not mounted: that is no list."""
    monkeypatch.setattr(_descriptors, "_LISTS", ("/dev/fd",))
    assert _descriptors.descriptors() is not None
    monkeypatch.setattr(os, "listdir", lambda path: ["0", "1", "2"])
    assert _descriptors.descriptors() is None


def test_no_list_of_native_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Linux has one."""
    monkeypatch.setattr(_tasks, "TASKS", os.devnull)
    (hazard,) = found("native-thread")
    assert (hazard.severity, hazard.subject) == ("advice", "(unknown)")


def test_locks_that_there_was_no_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is bounded in time, and tells where it was cut off."""
    monkeypatch.setattr(_locks, "_BATCH", 1)
    monkeypatch.setattr(_locks, "_SECONDS", -1.0)
    (hazard,) = [h for h in forksafe.audit(locks=True) if h.subject == "locks"]
    assert (hazard.kind, hazard.severity) == ("unknown", "advice")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux tells what is mapped")
def test_threads_that_one_of_several_libraries_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no name, and what is mapped names both: the one that would hurt counts."""
    known = _native_owners.NativeOwner
    mapped = (("libc", known("one", "r1", "advice")), ("", known("other", "r2", "action")))
    monkeypatch.setattr(_native_owners, "MAPPED", mapped)
    owner = _native_owners.owner("python", unnamed=True)
    assert (owner.library, owner.remedy, owner.severity) == ("other or one", "r2", "action")


def test_resident_memory_by_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc does not tell the present one."""
    resource = pytest.importorskip("resource", reason="POSIX")
    assert resource
    present = _memory._resident()
    monkeypatch.setattr(os, "sysconf", lambda name: int("not a number"))
    assert _memory._resident() >= present // 2 > 0
