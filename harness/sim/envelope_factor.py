"""Cholesky factors of the Newton solver's Hessian within their envelope, operation for operation as MuJoCo's dense ones.

See `constraint_solver`. Rows are padded to whole blocks of four. Row i of a factor is zero before column `envelope[i]`, and column j
below row `last[j]`; products with those zeros are left out.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import allocating, compiled
from harness.sim.contact_costs import CONE, MAX_DIM, QUADRATIC, Constraints
from harness.sim.lanes import add_scaled
from harness.sim.sparse_rows import MASK, Inertia, Rows, copy, dot, padded

Array = NDArray[np.float64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]

MINVAL = 1e-15  # mjMINVAL


@compiled
def cholesky(matrix: Array, n: int, width: int, envelope: Ints, last: Ints) -> None:
    """`mju_cholFactor` of the lower triangle of (n, width)."""
    for j in range(n):
        x = matrix[j * width + j]
        if j:
            x -= dot(matrix, j * width, matrix, j * width, envelope[j], j)
        x = math.sqrt(max(x, MINVAL))
        matrix[j * width + j] = x
        inverse = 1 / x
        for i in range(j + 1, last[j] + 1):
            if envelope[i] <= j:
                first = max(envelope[i], envelope[j])
                at = i * width + j
                matrix[at] = (matrix[at] - dot(matrix, i * width, matrix, j * width, first, j)) * inverse


@compiled
def back_substitute(factor: Array, rows: Rows, vector: Array, result: Array) -> None:
    """`mju_cholSolve`."""
    envelope, last = rows.envelope, rows.last
    n = len(envelope)
    width = padded(n)
    for i in range(n):
        x = vector[i]
        if i:
            x -= dot(factor, i * width, result, 0, envelope[i], i)
        result[i] = x / factor[i * width + i]
    for i in range(n - 1, -1, -1):
        x = result[i]
        for j in range(i + 1, last[i] + 1):
            if envelope[j] <= i:
                x -= factor[j * width + i] * result[j]
        result[i] = x / factor[i * width + i]


@compiled
def cholesky_update(factor: Array, rows: Rows, x: Array, xt: int, plus: bool) -> bool:
    """`mju_cholUpdate` by x x', x beginning at `xt`; False where accuracy was lost."""
    envelope, last = rows.envelope, rows.last
    n = len(envelope)
    width = padded(n)
    accurate = True
    for k in range(n):
        xk = x[xt + k]
        if xk == 0.0:
            continue
        diagonal = factor[k * width + k]
        square = diagonal * diagonal + (xk * xk if plus else -xk * xk)
        if square < MINVAL:
            square = MINVAL
            accurate = False
        r = math.sqrt(square)
        c = r / diagonal
        inverse = 1 / c
        s = xk / diagonal
        factor[k * width + k] = r
        for i in range(k + 1, last[k] + 1):
            if envelope[i] <= k:
                xi, at = x[xt + i], i * width + k
                changed = (factor[at] + s * xi if plus else factor[at] - s * xi) * inverse
                factor[at] = changed
                x[xt + i] = c * xi - s * changed
    return accurate


@compiled
def factor_hessian(constraints: Constraints, rows: Rows, inertia: Inertia, state: Bytes, factor: Array) -> None:
    """`HessianDirect` without cones: the factor of M + J' D J over the quadratic constraints."""
    n = len(rows.envelope)
    width = padded(n)
    column, value, stiffness = rows.column, rows.value, constraints.stiffness
    factor[:] = 0.0
    for row in range(len(state)):
        if state[row] != QUADRATIC or stiffness[row] == 0.0:
            continue
        first = rows.start[row] & MASK
        for a in range(first, rows.start[row + 1] & MASK):
            for k in range(4):
                x = value[(4 * a + k) & MASK]
                if x == 0.0:
                    continue
                scale = x * stiffness[row]
                line = (column[a] + k) * width
                for b in range(first, a + 1):  # beyond the diagonal nobody reads
                    add_scaled(factor, (line + column[b]) & MASK, value, (4 * b) & MASK, scale)
    for i in range(n):
        at = inertia.address[i]
        j = i
        while j >= 0:
            factor[i * width + j] += inertia.value[at]
            if inertia.simple[i]:
                break
            j = inertia.parent[j]
            at += 1
    cholesky(factor, n, width, rows.envelope, rows.last)


@allocating
def add_cones(
    constraints: Constraints, rows: Rows, state: Bytes, cone_hessian: Array, factor: Array, result: Array
) -> None:
    """`HessianCone`: the factor with the contributions of contacts that slide."""
    width = padded(len(rows.envelope))
    copy(factor, result)
    local, products = np.empty(MAX_DIM * MAX_DIM), np.empty(MAX_DIM * width)
    first, final = np.zeros(MAX_DIM, dtype=np.int32), np.empty(MAX_DIM, dtype=np.int32)
    row = 0
    while row < len(state):
        if state[row] != CONE:
            row += 1
            continue
        height = constraints.heights[row]
        for k in range(height * height):
            local[k] = cone_hessian[MAX_DIM * row + k]
        final[:] = height - 1
        cholesky(local, height, height, first, final)
        products[: height * width] = 0.0
        for r in range(height):
            for c in range(r + 1):
                scale = local[r * height + c]
                for block in range(rows.start[row + r], rows.start[row + r + 1]):
                    for k in range(4):
                        products[c * width + rows.column[block] + k] += rows.value[4 * block + k] * scale
        for r in range(height):
            cholesky_update(result, rows, products, r * width, True)
        row += height
