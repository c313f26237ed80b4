"""Arrays for compiled functions: what is packed is what is loaded, and nothing else can be packed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

pytestmark = pytest.mark.sim
packed = pytest.importorskip("harness.sim.packed")


class Inner(NamedTuple):
    scale: float
    rows: packed.FloatRows


class Outer(NamedTuple):
    count: int
    names: packed.Bytes
    inner: Inner
    places: packed.Ints
    addresses: packed.LongRows


def make() -> Outer:
    return Outer(
        count=-7,
        names=np.arange(5, dtype=np.uint8),
        inner=Inner(scale=-0.1, rows=np.arange(6.0).reshape(2, 3)),
        places=np.arange(4, dtype=np.int32) - 2,
        addresses=np.arange(4).reshape(2, 2) << 40,
    )


def test_what_is_packed_is_loaded_and_the_arrays_are_the_same_memory() -> None:
    import numba

    load = packed.loader(Outer)

    @numba.njit
    def add_up(address: int) -> float:
        values = load(address)
        total = values.count + values.inner.scale + values.addresses[1, 1] / 2.0**40
        values.inner.rows[1, 2] += 100.0
        return total + values.names.sum() + values.places[-1] + values.inner.rows.shape[1] * values.inner.rows[1, 0]

    values = make()
    words = packed.pack(values)
    assert add_up(words.ctypes.data) == -7 - 0.1 + 3 + 10 + 1 + 3 * 3.0
    assert values.inner.rows[1, 2] == 105.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("names", np.arange(5)),
        ("places", np.zeros((2, 2), dtype=np.int32)),
        ("addresses", np.zeros((4, 4), dtype=np.int64)[:, ::2]),
    ],
)
def test_another_array_cannot_be_packed(field: str, value: np.ndarray) -> None:
    with pytest.raises(TypeError, match=rf"Outer\.{field}: expected a contiguous .* array"):
        packed.pack(make()._replace(**{field: value}))


def test_views_of_memory() -> None:
    import numba

    floats_at, float_rows, int_rows = packed.floats_at, packed.float_rows, packed.int_rows

    @numba.njit
    def look(address: int) -> tuple[float, float, int, int]:
        rows = float_rows(address, 2, 3)
        rows[1, 0] *= 2.0
        return floats_at(address, 6)[3], rows[1].sum(), rows.shape[0], int_rows(address, 3, 4)[0, 2]

    numbers = np.arange(6.0)
    assert look(numbers.ctypes.data) == (6.0, 15.0, 2, 0)


def test_lanes_are_added_up_each_on_its_own() -> None:
    """As plain code does, to the bit."""
    import numba

    from harness.sim import lanes

    dot_lanes, row_lanes, add_scaled = lanes.dot_lanes, lanes.row_lanes, lanes.add_scaled

    @numba.njit
    def all_three(a, b, columns, work, scale):  # type: ignore[no-untyped-def]
        add_scaled(work, 3, a, 8, scale)
        return dot_lanes(a, 1, b, 2, 4, 20), row_lanes(a, columns, b, 1, 4)

    rng = np.random.default_rng(0)
    a, b, work = (rng.normal(size=40) * 10.0 ** rng.integers(-8, 8, 40) for _ in range(3))
    columns, scale, before = np.array([0, 8, 0, 30], dtype=np.int32), 0.1, work.copy()
    dots, rows = all_three(a, b, columns, work, scale)
    for lane in range(4):
        expected = 0.0
        for i in range(4, 20, 4):
            expected += a[1 + i + lane] * b[2 + i + lane]
        assert dots[lane] == expected
        expected = 0.0
        for block in range(1, 4):
            expected += a[4 * block + lane] * b[columns[block] + lane]
        assert rows[lane] == expected
    before[3:7] += a[8:12] * scale
    assert np.array_equal(work, before)
