"""Which pairs of geoms can touch soon: found once for several substeps, in which bodies move by millimetres.

MuJoCo compares the bounding boxes of all bodies, and of their geoms, in every substep anew; it hands the geoms to a collision function
where spheres and oriented boxes around them meet. A pair whose spheres or boxes lie apart by more than bodies may since have moved is
turned away there for certain, so it need not be looked at.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from harness.sim.compiled import compiled, inlined
from harness.sim.contact_layout import INCLUDE_MARGIN, MU
from harness.sim.packed import Bytes, FloatRows, Floats, IntRows, Ints, LongRows, Longs

NUM_COPIED = MU - INCLUDE_MARGIN
NUM_PARAMETERS = NUM_COPIED + 2
MARGIN, CONTACT_DIM = NUM_COPIED, NUM_COPIED + 1
"""Where `Pairs.parameters` have them; before them a contact's own, from its `includemargin` to its `solimp`."""
NUM_NOTES = 2
NUM_SEARCHES, NUM_DOUBTS = range(NUM_NOTES)
PLANE = 0
NUM_AXES = 6
_ROUNDING = 1e-9
"""[m] more than any rounding here."""


class Pairs(NamedTuple):
    """The pairs of geoms of a model that may ever touch, in MuJoCo's order, and what they are compared by."""

    bodies: Ints
    """(n,) those with geoms that collide."""
    centre: FloatRows
    """(n, 3) [m] of these geoms, in the body's frame."""
    radius: Floats
    """(n,) [m] of a sphere around it that holds them, but for planes."""
    reach: Floats
    """(n,) likewise; infinite with a plane."""
    shift: Floats
    """(n,) [m] by how much any point of a body may move until its pairs are looked at again."""
    turn: Floats
    """(n,) likewise the norm of the change of its rotation matrix."""
    reference: FloatRows
    """(n, 12) where the centre was then, and the rotation."""
    moved: Bytes
    """(n,) whether a body has moved further, in the search under way."""
    members: IntRows
    """(body pairs, 2) places in `bodies`."""
    first: Ints
    """(body pairs + 1,) where their pairs of geoms begin."""
    geoms: IntRows
    """(pairs, 2) that with the lower type first."""
    boxed: Bytes
    """(pairs,) whether MuJoCo compares the geoms' oriented boxes."""
    num_near: Ints
    """(body pairs,) how many of their pairs of geoms may touch soon."""
    near: Ints
    """(pairs,) room for these, where those of two bodies begin, in order."""
    axis: Ints
    """(pairs,) along which one each was found to be apart last."""
    owner: Ints
    """(ngeom,) place of a geom's body in `bodies`."""
    kind: Ints
    """(ngeom,) `geom_type`."""
    rbound: Floats
    """(ngeom,) [m]"""
    aabb: FloatRows
    """(ngeom, 6) centre and half sizes in the geom's frame [m]."""
    size: FloatRows
    """(ngeom, 3) [m]"""
    group: Ints
    """(ngeom,) of geoms with equal parameters."""
    groups: int
    parameters: FloatRows
    """(groups * groups, 17) of a contact between two."""
    margin: float
    """[m] the largest."""
    functions: LongRows
    """(9, 9) addresses of collision functions, by type."""
    xpos: FloatRows
    """(nbody, 3) mujoco's, as the next three."""
    xmat: FloatRows
    """(nbody, 9)"""
    geom_xpos: FloatRows
    """(ngeom, 3)"""
    geom_xmat: FloatRows
    """(ngeom, 9)"""
    notes: Longs
    """(2,) how many times two bodies' pairs were looked at, and how many doubts there were."""


@inlined
def pair_parameters(pairs: Pairs, pair: int) -> int:
    """The row of `Pairs.parameters`."""
    return pairs.group[pairs.geoms[pair, 0]] * pairs.groups + pairs.group[pairs.geoms[pair, 1]]


@inlined
def above_plane(pos: FloatRows, mat: FloatRows, plane: int, geom: int) -> float:
    """How far a geom's centre is above a plane: `planeGeomDist`."""
    x, y, z = pos[geom, 0] - pos[plane, 0], pos[geom, 1] - pos[plane, 1], pos[geom, 2] - pos[plane, 2]
    return x * mat[plane, 2] + y * mat[plane, 5] + z * mat[plane, 8]


@inlined
def gap(  # noqa: PLR0917 (compiled functions take arguments by position)
    pos: FloatRows, mat: FloatRows, aabb: FloatRows, geom1: int, geom2: int, axis: int
) -> float:
    """By how much the oriented boxes of two geoms lie apart along one of their six faces' normals; negative: they overlap."""
    if axis >= 3:
        axis -= 3
        geom1, geom2 = geom2, geom1
    x, y, z = mat[geom1, axis], mat[geom1, 3 + axis], mat[geom1, 6 + axis]
    between = (
        (pos[geom2, 0] - pos[geom1, 0]) * x + (pos[geom2, 1] - pos[geom1, 1]) * y + (pos[geom2, 2] - pos[geom1, 2]) * z
    )
    between -= aabb[geom1, axis]
    reach = aabb[geom1, 3 + axis]
    for k in range(3):
        along = mat[geom2, k] * x + mat[geom2, 3 + k] * y + mat[geom2, 6 + k] * z
        between += along * aabb[geom2, k]
        reach += abs(along) * aabb[geom2, 3 + k]
    return abs(between) - reach


@compiled
def search(pairs: Pairs) -> None:
    """Look again at pairs of which a body has moved further than was allowed for."""
    some = False
    for i in range(len(pairs.bodies)):
        pairs.moved[i] = _has_moved(pairs, i)
        if pairs.moved[i]:
            some = True
            body = pairs.bodies[i]
            for row in range(3):
                at = pairs.xpos[body, row]
                for column in range(3):
                    element = pairs.xmat[body, 3 * row + column]
                    at += element * pairs.centre[i, column]
                    pairs.reference[i, 3 + 3 * row + column] = element
                pairs.reference[i, row] = at
    if not some:
        return
    for k in range(len(pairs.members)):
        one, other = pairs.members[k, 0], pairs.members[k, 1]
        if not (pairs.moved[one] or pairs.moved[other]):
            continue
        pairs.notes[NUM_SEARCHES] += 1
        first = pairs.first[k]
        pairs.num_near[k] = 0
        slack = pairs.shift[one] + pairs.shift[other] + pairs.margin + _ROUNDING
        if _distance(pairs.reference, one, other) > pairs.reach[one] + pairs.reach[other] + slack:
            continue
        for body in (one, other):
            if not pairs.moved[body]:  # from where it is now it may move back, and as far again
                slack += pairs.shift[body]
        for pair in range(first, pairs.first[k + 1]):
            if not _far(pairs, pairs.geoms[pair, 0], pairs.geoms[pair, 1], slack, pairs.boxed[pair] == 1):
                pairs.near[first + pairs.num_near[k]] = pair
                pairs.num_near[k] += 1


@inlined
def _has_moved(pairs: Pairs, i: int) -> bool:
    """Whether a body has moved further than is allowed for."""
    body = pairs.bodies[i]
    shift = turn = 0.0
    for row in range(3):
        at = pairs.xpos[body, row]
        for column in range(3):
            element = pairs.xmat[body, 3 * row + column]
            at += element * pairs.centre[i, column]
            change = element - pairs.reference[i, 3 + 3 * row + column]
            turn += change * change
        change = at - pairs.reference[i, row]
        shift += change * change
    turn = math.sqrt(turn)
    return not (math.sqrt(shift) + turn * pairs.radius[i] <= pairs.shift[i] and turn <= pairs.turn[i])


@inlined
def _distance(rows: FloatRows, a: int, b: int) -> float:
    """Between the points that two rows begin with."""
    x, y, z = rows[a, 0] - rows[b, 0], rows[a, 1] - rows[b, 1], rows[a, 2] - rows[b, 2]
    return math.sqrt(x * x + y * y + z * z)


@inlined
def _length(rows: FloatRows, row: int, first: int) -> float:
    """Of three numbers of a row."""
    x, y, z = rows[row, first], rows[row, first + 1], rows[row, first + 2]
    return math.sqrt(x * x + y * y + z * z)


@inlined
def _far(pairs: Pairs, geom1: int, geom2: int, slack: float, boxed: bool) -> bool:
    """Whether two geoms are turned away as long as points of one move by no more than `slack` [m] against the other's."""
    pos, aabb = pairs.geom_xpos, pairs.aabb
    if pairs.kind[geom1] == PLANE:
        return above_plane(pos, pairs.geom_xmat, geom1, geom2) > pairs.rbound[geom2] + slack
    distance = _distance(pos, geom1, geom2)
    if distance > pairs.rbound[geom1] + pairs.rbound[geom2] + slack:
        return True
    if not boxed:
        return False
    lever = distance + _length(aabb, geom1, 0) + _length(aabb, geom2, 0)
    for axis in range(NUM_AXES):  # turns with a body's box: then the far end of the other moves against it
        turning, swinging = (geom1, geom2) if axis < 3 else (geom2, geom1)
        owner = pairs.owner[turning]
        turn = pairs.turn[owner] if pairs.moved[owner] else 2.0 * pairs.turn[owner]
        swing = turn * (lever + _length(aabb, swinging, 3))
        if gap(pos, pairs.geom_xmat, aabb, geom1, geom2, axis) > slack + swing:
            return True
    return False


def notes() -> Longs:
    """Of a beginning."""
    return np.zeros(NUM_NOTES, dtype=np.int64)
