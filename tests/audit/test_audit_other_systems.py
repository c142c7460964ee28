"""What a system does not tell is said to be unknown, and never to be absent."""

from __future__ import annotations

import os

import pytest

import forksafe
from forksafe._audit import _runtime, _scene
from forksafe._libraries import Library


def found(kind: str) -> list[forksafe.Hazard]:
    return [hazard for hazard in forksafe.audit() if hazard.kind == kind]


def test_no_list_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets are looked for among the descriptors."""
    monkeypatch.setattr(_scene, "_LISTS", (os.devnull,))
    (hazard,) = found("unknown")
    assert (hazard.severity, hazard.subject) == ("advice", "descriptors")
    assert "cannot be seen" in hazard.summary


def test_a_list_of_three_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """FreeBSD's /dev/fd has no others where fdescfs(5) is not mounted: that is no list."""
    monkeypatch.setattr(_scene, "_LISTS", ("/dev/fd",))
    assert _scene.descriptors() is not None
    monkeypatch.setattr(os, "listdir", lambda path: ["0", "1", "2"])
    assert _scene.descriptors() is None


def test_no_list_of_native_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Linux has one."""
    monkeypatch.setattr(_runtime, "TASKS", os.devnull)
    (hazard,) = found("unknown")
    assert (hazard.severity, hazard.subject) == ("advice", "native threads")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux tells what is mapped")
def test_threads_that_one_of_several_libraries_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no name, and what is mapped names both: the one that would hurt counts."""
    libraries = (
        Library("one", "r1", severity="advice", mapped="libc"),
        Library("other", "r2", mapped="."),
    )
    monkeypatch.setattr(_runtime, "LIBRARIES", libraries)
    owner = _runtime._owner("", mask="0")
    assert (owner.name, owner.remedy, owner.severity) == ("other or one", "r2", "action")
