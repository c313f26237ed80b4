from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from results.trace import Trace, TraceError, read_trace, trace_path, write_trace
from tests.examples import trace


def test_a_trace_comes_back_bit_for_bit(tmp_path: Path) -> None:
    original = trace()
    write_trace(tmp_path / "deep" / "a.npz", original)
    again = read_trace(tmp_path / "deep" / "a.npz")
    for name in Trace.__slots__:
        a, b = getattr(original, name), getattr(again, name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


def test_nothing_but_the_trace_is_left(tmp_path: Path) -> None:
    write_trace(tmp_path / "a.npz", trace())
    write_trace(tmp_path / "a.npz", trace(steps=5))
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    assert len(read_trace(tmp_path / "a.npz").actions) == 5


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_truncated_trace_is_named(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "a.npz"
    write_trace(file, trace())
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(TraceError, match=r"a\.npz: not a readable trace"):
        read_trace(file)


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.trace.TRACE_VERSION", 99)
    write_trace(tmp_path / "a.npz", trace())
    monkeypatch.undo()
    with pytest.raises(TraceError, match="expected trace version 1, got 99"):
        read_trace(tmp_path / "a.npz")


def test_paths() -> None:
    assert trace_path("libero_spatial/03/07/r0") == "traces/libero_spatial/03/07-r0.npz"
