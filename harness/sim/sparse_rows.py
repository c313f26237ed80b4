"""The constraint Jacobian and the inertia, multiplied as MuJoCo does, but for products with zero.

See `constraint_solver`. Sums of products run in four lanes, as MuJoCo's AVX code has them (`mju_dot` in engine_util_blas.c).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import compiled, inlined
from harness.sim.lanes import add_scaled, dot_lanes, row_lanes
from harness.sim.packed import Floats, Ints

Array = NDArray[np.float64]

MASK = 0x7FFFFFFF
"""Tells the compiler that an index is not negative: it need not be counted from the end."""


class Rows(NamedTuple):
    """The Jacobian in blocks of four columns, without those that are zero."""

    start: Ints
    """(nefc + 1,) each row's first block."""
    column: Ints
    """(blocks,) each block's first column; in a row they ascend."""
    value: Array
    """(4 blocks,) its elements; zeros beyond the last column."""
    envelope: Ints
    """(nv,) of each column the first one that shares a constraint with it, or is coupled with it by inertia."""
    last: Ints
    """(nv,) of each column the last one that it is the envelope of, or lies beyond."""


class Inertia(NamedTuple):
    """MuJoCo's joint-space inertia: `qM`, `dof_Madr`, `dof_parentid` and `dof_simplenum`."""

    value: Floats
    address: Ints
    parent: Ints
    simple: Ints


@compiled
def padded(n: int) -> int:
    """Whole blocks of four."""
    return n + 3 - (n + 3) % 4


@inlined
def copy(source: NDArray[Any], to: NDArray[Any]) -> None:
    """to[:] = source, which numba lets take seconds to compile."""
    for i in range(len(to)):
        to[i] = source[i]


@compiled
def dot(a: Array, at: int, b: Array, bt: int, first: int, n: int) -> float:
    """`mju_dot` of n elements, of which those before `first` are zero products; the vectors begin at `at` and `bt`."""
    whole = n - n % 4
    r0, r1, r2, r3 = dot_lanes(a, at, b, bt, first - first % 4, whole)
    total = (r0 + r2) + (r1 + r3)
    left = n - whole
    ai, bi = (at + whole) & MASK, (bt + whole) & MASK
    if left == 3:
        total += a[ai] * b[bi] + a[ai + 1] * b[bi + 1] + a[ai + 2] * b[bi + 2]
    elif left == 2:
        total += a[ai] * b[bi] + a[ai + 1] * b[bi + 1]
    elif left == 1:
        total += a[ai] * b[bi]
    return total


@compiled
def multiply(rows: Rows, vector: Array, result: Array) -> None:
    """`mju_mulMatVec`: result (nefc,) = J vector; the vector is padded with zeros to whole blocks."""
    nv = len(rows.envelope)
    whole = nv - nv % 4
    column, value = rows.column, rows.value
    for row in range(len(result)):
        first, end = np.int64(rows.start[row]), np.int64(rows.start[row + 1])
        tail = 0.0
        if first < end and column[end - 1] == whole:
            end -= 1
            at = (4 * end) & MASK
            tail = value[at] * vector[whole] + value[at + 1] * vector[whole + 1] + value[at + 2] * vector[whole + 2]
        r0, r1, r2, r3 = row_lanes(value, column, vector, first, end)
        result[row] = ((r0 + r2) + (r1 + r3)) + tail


@compiled
def multiply_transposed(rows: Rows, vector: Array, result: Array, work: Array) -> None:
    """`mju_mulMatTVec`: result (nv,) = J' vector."""
    column, value = rows.column, rows.value
    work[:] = 0.0
    for row in range(len(vector)):
        x = vector[row]
        if x != 0.0:
            for block in range(rows.start[row] & MASK, rows.start[row + 1] & MASK):
                add_scaled(work, column[block] & MASK, value, (4 * block) & MASK, x)
    copy(work, result)


@compiled
def multiply_inertia(inertia: Inertia, vector: Array, result: Array) -> None:
    """`mj_mulM`: result (nv,) = M vector."""
    for i in range(len(vector)):
        at = inertia.address[i]
        result[i] = inertia.value[at] * vector[i]
        if inertia.simple[i]:
            continue
        j = inertia.parent[i]
        while j >= 0:
            at += 1
            result[i] += inertia.value[at] * vector[j]
            result[j] += inertia.value[at] * vector[i]
            j = inertia.parent[j]
