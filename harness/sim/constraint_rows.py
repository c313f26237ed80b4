"""The constraints of a state, as `mj_makeConstraint` and `mj_referenceConstraint` make them: the same numbers, without the zeros.

See `constraint_solver`. MuJoCo writes each contact's Jacobian as whole rows of all degrees of freedom, most of which it moves not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import compiled
from harness.sim.contact_costs import Constraints
from harness.sim.sparse_rows import MASK, Rows, couple, padded

Array = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

MINVAL = 1e-15
_MINIMP, _MAXIMP = 0.0001, 0.9999
CONTACT_BYTES = 576
FRICTION = 14
_DIST, _POS, _FRAME, _MARGIN, _SOLREF, _SOLIMP, _MU = 0, 1, 4, 13, 19, 23, 28
"""Where a contact has them, in eight bytes (`mjContact` in mjdata.h)."""
_DIM, _GEOM, _EXCLUDE, _EFC_ADDRESS = 130, 133, 141, 142
"""Likewise, in four bytes."""


class Bodies(NamedTuple):
    """What of the model and of the state constraints are made from."""

    parent: Ints
    """(nv,) `dof_parentid`."""
    simple: Ints
    """(nv,) `dof_simplenum`."""
    friction_dofs: Ints
    """(nf,) the degrees of freedom with friction loss."""
    friction_rows: Array
    """(nf, 4) their loss, D, R and B."""
    limit_index: Ints
    """(limits, 2) in `qpos` and `qvel`, of each joint that has limits."""
    limit_rows: Array
    """(limits, 11) their range, margin, `solref`, `solimp` and inverse weight."""
    geom_dof: Ints
    """(ngeom,) the last degree of freedom that moves it; -1 for none."""
    geom_root: Ints
    """(ngeom,) `body_rootid` of its body."""
    geom_weight: Array
    """(ngeom,) inverse weight of its body in translation."""
    geom_blocks: Longs
    """(ngeom,) a bit for each four degrees of freedom of which one moves the geom."""
    qpos: Array
    """(nq,)"""
    qvel: Array
    """(nv,)"""
    velocity: Array
    """(nv padded,) room for the same, with zeros."""
    cdof: Array
    """(nv, 6) motion axes."""
    com: Array
    """(nbody, 3) `subtree_com`."""
    impratio: float
    timestep: float


@compiled
def _larger(a: float, b: float) -> float:
    """`mju_max`."""
    return a if a > b else b


@compiled
def _smaller(a: float, b: float) -> float:
    """`mju_min`."""
    return a if a < b else b


@compiled
def _power(a: float, b: float) -> float:
    if b == 1.0:
        return a
    if b == 2.0:
        return a * a
    return math.pow(a, b)


@compiled
def _impedance(solimp: Array, at: int, distance: float) -> tuple[float, float]:
    """`getimpedance` of a position beyond the margin; and the width's far end, made valid as `getsolparam` does."""
    first = _smaller(_MAXIMP, _larger(_MINIMP, solimp[at]))
    second = _smaller(_MAXIMP, _larger(_MINIMP, solimp[at + 1]))
    width = _larger(0.0, solimp[at + 2])
    middle = _smaller(_MAXIMP, _larger(_MINIMP, solimp[at + 3]))
    power = _larger(1.0, solimp[at + 4])
    if first == second or width <= MINVAL:
        return 0.5 * (first + second), second
    x = distance / width
    if x < 0.0:
        x = -x
    if x >= 1.0 or x <= 0.0:
        return (second if x >= 1.0 else first), second
    if power == 1.0:
        y = x
    elif x <= middle:
        y = (1.0 / _power(middle, power - 1.0)) * _power(x, power)
    else:
        y = 1.0 - (1.0 / _power(1.0 - middle, power - 1.0)) * _power(1.0 - x, power)
    return first + y * (second - first), second


@compiled
def parameters(  # noqa: PLR0917 (compiled functions take arguments by position)
    solref: Array, solref_at: int, solimp: Array, solimp_at: int, distance: float, weight: float, timestep: float
) -> tuple[float, float, float, float]:
    """`mj_makeImpedance` of one row: R, K, B and the impedance. `solref` is in the standard format, two positive numbers.

    Args:
        distance: position less margin.
        weight: approximate inverse inertia.
    """
    impedance, far = _impedance(solimp, solimp_at, distance)
    time, damping = _larger(solref[solref_at], 2.0 * timestep), solref[solref_at + 1]
    regularizer = _larger(MINVAL, (1.0 - impedance) * weight / impedance)
    k = 1.0 / _larger(MINVAL, far * far * time * time * damping * damping)
    b = 2.0 / _larger(MINVAL, far * time)
    return regularizer, k, b, impedance


@compiled
def count_rows(bodies: Bodies, contacts: Array, integers: Ints) -> int:
    """How many constraints there are."""
    n = len(bodies.friction_dofs)
    for i in range(len(bodies.limit_index)):
        n += _limit(bodies, i, -1.0)[0] + _limit(bodies, i, 1.0)[0]
    for at in range(len(contacts)):
        if not integers[at, _EXCLUDE]:
            n += integers[at, _DIM]
    return n


@compiled
def _limit(bodies: Bodies, i: int, side: float) -> tuple[bool, float]:
    """Whether a joint is beyond its limit on one side, and how far."""
    value = bodies.qpos[bodies.limit_index[i, 0]]
    distance = side * (bodies.limit_rows[i, 0 if side < 0.0 else 1] - value)
    return distance < bodies.limit_rows[i, 2], distance


@compiled
def _single(  # noqa: PLR0917 (compiled functions take arguments by position)
    rows: Rows, constraints: Constraints, bodies: Bodies, row: int, n: int, dof: int, value: float
) -> int:
    """A row with one element; its velocity goes to `aref`."""
    block = dof - dof % 4
    for k in range(4):
        rows.value[4 * n + k] = 0.0
    rows.value[4 * n + dof - block] = value
    rows.column[n] = block
    rows.start[row] = n
    constraints.heights[row] = 0
    constraints.aref[row] = 0.0 + value * bodies.velocity[dof]
    return n + 1


@compiled
def _jacobian(bodies: Bodies, contact: Array, geoms: Ints, torsion: bool, difference: Array) -> int:
    """The motion (6, nv padded) of a contact's second body against the first, where it is not zero; which blocks that is in."""
    blocks = bodies.geom_blocks[geoms[0]] | bodies.geom_blocks[geoms[1]]
    height = 6 if torsion else 3
    rest, i = blocks, 0
    while rest:
        if rest & 1:
            for axis in range(height):
                for k in range(4):
                    difference[axis, i + k] = 0.0
        rest >>= 1
        i += 4
    for side in range(2):
        geom = geoms[side]
        dof = bodies.geom_dof[geom]
        root = bodies.geom_root[geom]
        o0 = contact[_POS] - bodies.com[root, 0]
        o1 = contact[_POS + 1] - bodies.com[root, 1]
        o2 = contact[_POS + 2] - bodies.com[root, 2]
        while dof >= 0:
            r0, r1, r2 = bodies.cdof[dof, 0], bodies.cdof[dof, 1], bodies.cdof[dof, 2]
            p0 = bodies.cdof[dof, 3] + (r1 * o2 - r2 * o1)
            p1 = bodies.cdof[dof, 4] + (r2 * o0 - r0 * o2)
            p2 = bodies.cdof[dof, 5] + (r0 * o1 - r1 * o0)
            if side == 0:
                difference[0, dof], difference[1, dof], difference[2, dof] = p0, p1, p2
                if torsion:
                    difference[3, dof], difference[4, dof], difference[5, dof] = r0, r1, r2
            else:
                difference[0, dof] = p0 - difference[0, dof]
                difference[1, dof] = p1 - difference[1, dof]
                difference[2, dof] = p2 - difference[2, dof]
                if torsion:
                    difference[3, dof] = r0 - difference[3, dof]
                    difference[4, dof] = r1 - difference[4, dof]
                    difference[5, dof] = r2 - difference[5, dof]
            dof = bodies.parent[dof]
        if side == 0:
            _negate_rest(bodies, geoms[0], geoms[1], height, difference)
    return blocks


@compiled
def _negate_rest(bodies: Bodies, first: int, second: int, height: int, difference: Array) -> None:
    """What moves the first body only counts against it."""
    shared = bodies.geom_dof[second]
    dof = bodies.geom_dof[first]
    while dof >= 0:
        while shared > dof:
            shared = bodies.parent[shared]
        if shared == dof:
            return  # from here on both move
        for axis in range(height):
            difference[axis, dof] = 0.0 - difference[axis, dof]
        dof = bodies.parent[dof]


@compiled
def _contact_row(  # noqa: PLR0917 (compiled functions take arguments by position)
    rows: Rows, bodies: Bodies, frame: Array, axis: int, first: int, difference: Array, blocks: int, n: int
) -> tuple[int, float]:
    """One row of a contact's Jacobian, an axis of its frame; how many blocks there are then, and the row's velocity.

    Args:
        first: of the three rows of `difference` it is made from.
    """
    nv = len(bodies.parent)
    whole = nv - nv % 4
    f0, f1, f2 = frame[_FRAME + 3 * axis], frame[_FRAME + 3 * axis + 1], frame[_FRAME + 3 * axis + 2]
    v0 = v1 = v2 = v3 = tail = 0.0
    i = 0
    while blocks:
        if blocks & 1:
            some = False
            for k in range(4):
                x = 0.0
                if f0 != 0.0:
                    x += difference[first, i + k] * f0
                if f1 != 0.0:
                    x += difference[first + 1, i + k] * f1
                if f2 != 0.0:
                    x += difference[first + 2, i + k] * f2
                rows.value[(4 * n + k) & MASK] = x
                some = some or x != 0.0
            if some:
                at = (4 * n) & MASK
                p0, p1 = rows.value[at] * bodies.velocity[i], rows.value[at + 1] * bodies.velocity[i + 1]
                p2, p3 = rows.value[at + 2] * bodies.velocity[i + 2], rows.value[at + 3] * bodies.velocity[i + 3]
                if i == whole:
                    tail = p0 + p1 + p2
                else:
                    v0 += p0
                    v1 += p1
                    v2 += p2
                    v3 += p3
                rows.column[n & MASK] = i
                n += 1
        blocks >>= 1
        i += 4
    return n, ((v0 + v2) + (v1 + v3)) + tail


@compiled
def build(rows: Rows, constraints: Constraints, bodies: Bodies, contacts: Array, integers: Ints) -> None:
    """All constraints.

    Args:
        rows, constraints: to be filled; there is room.
        contacts: (ncon, 72) mujoco's, as numbers of eight bytes.
        integers: (ncon, 144) the same, as those of four.
    """
    nv = len(bodies.parent)
    for i in range(nv):
        j = i  # the inertia couples a degree of freedom with those above it
        while bodies.parent[j] >= 0 and not bodies.simple[i]:
            j = bodies.parent[j]
        rows.envelope[i] = j
        bodies.velocity[i] = bodies.qvel[i]
    n = row = 0
    for dof in bodies.friction_dofs:
        n = _single(rows, constraints, bodies, row, n, dof, 1.0)
        constraints.friction_loss[row] = bodies.friction_rows[row, 0]
        constraints.stiffness[row] = bodies.friction_rows[row, 1]
        constraints.regularizer[row] = bodies.friction_rows[row, 2]
        constraints.aref[row] = -bodies.friction_rows[row, 3] * constraints.aref[row]
        row += 1
    for i in range(len(bodies.limit_index)):
        for side in (-1.0, 1.0):
            beyond, distance = _limit(bodies, i, side)
            if beyond:
                limit = bodies.limit_rows[i]
                n = _single(rows, constraints, bodies, row, n, bodies.limit_index[i, 1], -side)
                distance -= limit[2]
                r, k, b, impedance = parameters(limit, 3, limit, 5, distance, limit[10], bodies.timestep)
                constraints.stiffness[row], constraints.regularizer[row] = 1.0 / r, r
                constraints.aref[row] = -b * constraints.aref[row] - k * impedance * distance
                row += 1
    difference = np.empty((6, padded(nv)))
    for at in range(len(contacts)):
        if integers[at, _EXCLUDE]:
            continue
        contact, geoms, height = contacts[at], integers[at, _GEOM : _GEOM + 2], integers[at, _DIM]
        integers[at, _EFC_ADDRESS] = row
        blocks = _jacobian(bodies, contact, geoms, height > 3, difference)
        weight = bodies.geom_weight[geoms[0]] + bodies.geom_weight[geoms[1]]
        distance = contact[_DIST] - contact[_MARGIN]
        r, k, b, impedance = parameters(contact, _SOLREF, contact, _SOLIMP, distance, weight, bodies.timestep)
        first = n
        for axis in range(height):
            rows.start[row + axis] = n
            n, velocity = _contact_row(rows, bodies, contact, axis % 3, 3 if axis > 2 else 0, difference, blocks, n)
            constraints.aref[row + axis] = -b * velocity
        constraints.aref[row] -= k * impedance * distance
        constraints.stiffness[row], constraints.regularizer[row], constraints.heights[row] = 1.0 / r, r, 0
        if height > 1:
            _add_friction(constraints, contact, row, height, r, bodies.impratio)
        couple(rows, first, n)
        row += height
    rows.start[row] = n
    for i in range(nv):
        for j in range(rows.envelope[i], i + 1):
            rows.last[j] = i


@compiled
def _add_friction(  # noqa: PLR0917 (compiled functions take arguments by position)
    constraints: Constraints, contact: Array, row: int, height: int, regularizer: float, impratio: float
) -> None:
    """The rows of a contact's friction, and its cone."""
    side = regularizer / _larger(MINVAL, impratio)
    first = contact[FRICTION]
    mu = first * math.sqrt(side / regularizer)
    contact[_MU] = mu
    constraints.heights[row] = height
    constraints.cone[row] = mu
    for k in range(1, height):
        friction = contact[FRICTION + k - 1]
        r = side if k == 1 else side * first * first / (friction * friction)
        constraints.stiffness[row + k], constraints.regularizer[row + k] = 1.0 / r, r
        constraints.cone[row + k] = friction
