"""The constraints of a state, as `mj_makeConstraint` and `mj_referenceConstraint` make them: the same numbers, without the zeros.

See `constraint_solver`. MuJoCo writes each contact's Jacobian as whole rows of all degrees of freedom, most of which it moves not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim import contact_layout as layout
from harness.sim.compiled import allocating, compiled, inlined
from harness.sim.contact_costs import Constraints
from harness.sim.envelope_factor import MINVAL
from harness.sim.sparse_rows import MASK, Rows, multiply, padded

Array = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

_MINIMP, _MAXIMP = 0.0001, 0.9999


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


@inlined
def _larger(a: float, b: float) -> float:
    """`mju_max`."""
    return a if a > b else b


@inlined
def _smaller(a: float, b: float) -> float:
    """`mju_min`."""
    return a if a < b else b


@inlined
def _power(a: float, b: float) -> float:
    if b == 1.0:
        return a
    if b == 2.0:
        return a * a
    return math.pow(a, b)


@inlined
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


@inlined
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
        if not integers[at, layout.EXCLUDE]:
            n += integers[at, layout.DIM]
    return n


@inlined
def _limit(bodies: Bodies, i: int, side: float) -> tuple[bool, float]:
    """Whether a joint is beyond its limit on one side, and how far."""
    value = bodies.qpos[bodies.limit_index[i, 0]]
    distance = side * (bodies.limit_rows[i, 0 if side < 0.0 else 1] - value)
    return distance < bodies.limit_rows[i, 2], distance


@inlined
def _single(rows: Rows, row: int, dof: int, value: float) -> None:
    """A row with one element, in one block, as all rows before it."""
    block = dof - dof % 4
    for k in range(4):
        rows.value[4 * row + k] = 0.0
    rows.value[4 * row + dof - block] = value
    rows.column[row] = block
    rows.start[row] = row


@inlined
def _jacobian(  # noqa: PLR0917 (compiled functions take arguments by position)
    bodies: Bodies, contact: Array, geoms: Ints, torsion: bool, difference: Array, where: Longs
) -> int:
    """The motion (6, nv padded) of a contact's second body against the first, in the blocks where it is not zero.

    Args:
        where: gets the blocks' first columns.

    Returns:
        How many blocks there are.
    """
    rest = bodies.geom_blocks[geoms[0]] | bodies.geom_blocks[geoms[1]]
    height = 6 if torsion else 3
    i = n = 0
    while rest:
        if rest & 1:
            where[n] = i
            n += 1
            for axis in range(height):
                for k in range(4):
                    difference[axis, (i + k) & MASK] = 0.0
        rest >>= 1
        i += 4
    for side in range(2):
        geom = geoms[side]
        dof = bodies.geom_dof[geom]
        root = bodies.geom_root[geom]
        o0 = contact[layout.POS] - bodies.com[root, 0]
        o1 = contact[layout.POS + 1] - bodies.com[root, 1]
        o2 = contact[layout.POS + 2] - bodies.com[root, 2]
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
    return n


@inlined
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


@inlined
def _rotate(  # noqa: PLR0917 (compiled functions take arguments by position)
    rows: Rows, contact: Array, height: int, difference: Array, where: Longs, blocks: int, first: int
) -> int:
    """A contact's rows of the Jacobian, from its block `first` on: the motion in its frame. A product with zero adds nothing.

    Returns:
        A bit for each column that is other than zero.
    """
    value, columns = rows.value, 0
    for part in range((height + 2) // 3):  # translation, rotation
        r = 3 * part
        for block in range(blocks):
            i = where[block] & MASK
            a0, a1, a2, a3 = difference[r, i], difference[r, i + 1], difference[r, i + 2], difference[r, i + 3]
            r1, r2 = r + 1, r + 2
            b0, b1, b2, b3 = difference[r1, i], difference[r1, i + 1], difference[r1, i + 2], difference[r1, i + 3]
            c0, c1, c2, c3 = difference[r2, i], difference[r2, i + 1], difference[r2, i + 2], difference[r2, i + 3]
            for axis in range(min(3, height - r)):
                f = layout.FRAME + 3 * axis
                f0, f1, f2 = contact[f], contact[f + 1], contact[f + 2]
                x0 = ((0.0 + a0 * f0) + b0 * f1) + c0 * f2
                x1 = ((0.0 + a1 * f0) + b1 * f1) + c1 * f2
                x2 = ((0.0 + a2 * f0) + b2 * f1) + c2 * f2
                x3 = ((0.0 + a3 * f0) + b3 * f1) + c3 * f2
                to = (first + (r + axis) * blocks + block) & MASK
                rows.column[to] = i
                at = 4 * to
                value[at], value[at + 1], value[at + 2], value[at + 3] = x0, x1, x2, x3
                some = (x0 != 0.0) | (x1 != 0.0) << 1 | (x2 != 0.0) << 2 | (x3 != 0.0) << 3
                columns |= some << i
    return columns


@inlined
def _couple(rows: Rows, columns: int) -> None:
    """Let the envelope hold all columns of a contact, whose rows are mixed where it slides."""
    low = 0
    while not columns >> low & 1:
        low += 1
    for i in range(low, len(rows.envelope)):
        if columns >> i & 1:
            rows.envelope[i] = min(rows.envelope[i], low)


class _Reference(NamedTuple):
    """What the reference accelerations are made from, besides velocities."""

    damping: Array
    """(nefc,)"""
    offset: Array
    """(nefc,)"""


class _Room(NamedTuple):
    """What a contact's rows are made in."""

    difference: Array
    """(6, nv padded) motion of its point of one body against the other's, by each degree of freedom."""
    where: Longs
    """(nv,) the blocks of four in which there is some."""


@allocating
def build(rows: Rows, constraints: Constraints, bodies: Bodies, contacts: Array, integers: Ints) -> None:
    """All constraints.

    Args:
        rows, constraints: to be filled; there is room.
        contacts: (ncon, 72) mujoco's, as numbers of eight bytes.
        integers: (ncon, 144) the same, as those of four.
    """
    nv, nefc = len(bodies.parent), len(constraints.aref)
    for i in range(nv):
        j = i  # the inertia couples a degree of freedom with those above it
        while bodies.parent[j] >= 0 and not bodies.simple[i]:
            j = bodies.parent[j]
        rows.envelope[i] = j
        bodies.velocity[i] = bodies.qvel[i]
    reference = _Reference(np.empty(nefc), np.empty(nefc))
    room = _Room(np.empty((6, padded(nv))), np.empty(nv, dtype=np.int64))
    row = _add_joints(rows, constraints, bodies, reference)
    _add_contacts(rows, constraints, bodies, reference, room, contacts, integers, row)
    multiply(rows, bodies.velocity, constraints.aref)
    for i in range(nefc):
        constraints.aref[i] = -reference.damping[i] * constraints.aref[i] - reference.offset[i]
    for i in range(nv):
        for j in range(rows.envelope[i], i + 1):
            rows.last[j] = i


@inlined
def _add_joints(rows: Rows, constraints: Constraints, bodies: Bodies, reference: _Reference) -> int:
    """Friction and limits of joints, one element each; returns how many rows."""
    row = 0
    for dof in bodies.friction_dofs:
        _single(rows, row, dof, 1.0)
        constraints.friction_loss[row] = bodies.friction_rows[row, 0]
        constraints.stiffness[row] = bodies.friction_rows[row, 1]
        constraints.regularizer[row] = bodies.friction_rows[row, 2]
        constraints.heights[row] = 0
        reference.damping[row], reference.offset[row] = bodies.friction_rows[row, 3], 0.0
        row += 1
    for i in range(len(bodies.limit_index)):
        for side in (-1.0, 1.0):
            beyond, distance = _limit(bodies, i, side)
            if beyond:
                limit = bodies.limit_rows[i]
                _single(rows, row, bodies.limit_index[i, 1], -side)
                distance -= limit[2]
                r, k, b, impedance = parameters(limit, 3, limit, 5, distance, limit[10], bodies.timestep)
                constraints.stiffness[row], constraints.regularizer[row], constraints.heights[row] = 1.0 / r, r, 0
                reference.damping[row], reference.offset[row] = b, k * impedance * distance
                row += 1
    return row


@inlined
def _add_contacts(  # noqa: PLR0917 (compiled functions take arguments by position)
    rows: Rows,
    constraints: Constraints,
    bodies: Bodies,
    reference: _Reference,
    room: _Room,
    contacts: Array,
    integers: Ints,
    row: int,
) -> None:
    """Contacts, from a row on, before which each has one block."""
    n, before, difference, where = row, 0, room.difference, room.where
    for at in range(len(contacts)):
        if integers[at, layout.EXCLUDE]:
            continue
        contact, geoms, height = contacts[at], integers[at, layout.GEOM : layout.GEOM + 2], integers[at, layout.DIM]
        integers[at, layout.EFC_ADDRESS] = row
        blocks = _jacobian(bodies, contact, geoms, height > 3, difference, where)
        columns = _rotate(rows, contact, height, difference, where, blocks, n)
        if columns and columns != before:
            _couple(rows, columns)
            before = columns
        weight = bodies.geom_weight[geoms[0]] + bodies.geom_weight[geoms[1]]
        distance = contact[layout.DIST] - contact[layout.INCLUDE_MARGIN]
        r, k, b, impedance = parameters(
            contact, layout.SOLREF, contact, layout.SOLIMP, distance, weight, bodies.timestep
        )
        constraints.stiffness[row], constraints.regularizer[row], constraints.heights[row] = 1.0 / r, r, 0
        for i in range(height):
            rows.start[row + i] = n
            reference.damping[row + i], reference.offset[row + i] = b, 0.0
            n += blocks
        reference.offset[row] = k * impedance * distance
        if height > 1:
            _add_friction(constraints, contact, row, height, r, bodies.impratio)
        row += height
    rows.start[row] = n


@inlined
def _add_friction(  # noqa: PLR0917 (compiled functions take arguments by position)
    constraints: Constraints, contact: Array, row: int, height: int, regularizer: float, impratio: float
) -> None:
    """The rows of a contact's friction, and its cone."""
    side = regularizer / _larger(MINVAL, impratio)
    first = contact[layout.FRICTION]
    mu = first * math.sqrt(side / regularizer)
    contact[layout.MU] = mu
    constraints.heights[row] = height
    constraints.cone[row] = mu
    for k in range(1, height):
        friction = contact[layout.FRICTION + k - 1]
        r = side if k == 1 else side * first * first / (friction * friction)
        constraints.stiffness[row + k], constraints.regularizer[row + k] = 1.0 / r, r
        constraints.cone[row + k] = friction
