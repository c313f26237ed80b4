from __future__ import annotations

from pathlib import Path

import pytest

from harness import machine
from harness.machine import count_workers


@pytest.mark.parametrize(
    ("cores", "gib", "on_gpu", "expected"),
    [(16, 100.0, False, 16), (16, 100.0, True, 24), (16, 9.5, True, 9), (2, 0.2, False, 1), (1, 24.0, False, 1)],
)
def test_auto_goes_by_cores_memory_and_gpu(
    monkeypatch: pytest.MonkeyPatch, cores: int, gib: float, on_gpu: bool, expected: int
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(machine, "available_bytes", lambda: gib * 2**30)
    assert count_workers("auto", on_gpu=on_gpu) == expected
    assert count_workers("half", on_gpu=on_gpu) == max(1, expected // 2)


def test_a_number_is_taken_as_it_is() -> None:
    assert [count_workers(text, on_gpu=True) for text in ("0", "1", "40")] == [0, 1, 40]


@pytest.mark.parametrize("text", ["-1", "2.5", "all", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--workers: expected auto, half or a number from 0 up"):
        count_workers(text, on_gpu=False)


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "max").write_text("3000000000\n")
    (tmp_path / "used").write_text("1000000000\n")
    monkeypatch.setattr(machine, "_CGROUP_LIMIT", tmp_path / "max")
    monkeypatch.setattr(machine, "_CGROUP_USED", tmp_path / "used")
    assert machine.available_bytes() <= 2e9
    (tmp_path / "max").write_text("max\n")
    assert machine.available_bytes() == machine._free_in_machine()


def test_this_machine() -> None:
    assert machine.usable_cores() >= 1
    assert machine.available_bytes() > 0
