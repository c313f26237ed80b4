"""What `collisions` takes from a model, and whether it can: all pairs of geoms that may ever touch.

See `mj_broadphase`, `filterBodyPair` and `mj_contactParam` in MuJoCo's engine_collision_driver.c.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.envelope_factor import MINVAL
from harness.sim.near_pairs import CONTACT_DIM, MARGIN, NUM_COPIED, NUM_PARAMETERS, Pairs, notes
from harness.sim.stack import mujoco

Array = NDArray[np.float64]
_PLANE, _HFIELD, _MESH = (
    int(mujoco.mjtGeom.mjGEOM_PLANE),
    int(mujoco.mjtGeom.mjGEOM_HFIELD),
    int(mujoco.mjtGeom.mjGEOM_MESH),
)
_INFINITE = 1e10
"""[m] `mjMAXVAL`, half the width of a plane's box; it reaches as far down."""
_TOLERANCE = 1e-9
"""[m] by how much a bounding volume may fail to hold what it bounds, for rounding."""
_ROUNDING = 1e-15
"""Likewise in relation to its size: the boxes around planes reach 10^10 m down."""
_MESH_TOLERANCE = 1e-6
"""[m] vertices are kept in single precision; less than a contact of the convex functions must have (`collisions`)."""
SHIFT = 0.005
"""[m] by how much bodies may move until pairs are searched again."""
TURN = 0.03
"""Likewise the norm of the change of a rotation matrix; 0.02 rad."""


def make_pairs(model: Any, data: Any, functions: NDArray[np.int64]) -> Pairs:
    """The pairs of a model; none where it has what is not written out, or bounding volumes that do not bound.

    Args:
        data: mujoco's, with the kinematics of some positions.
        functions: (9, 9) addresses of MuJoCo's collision functions.
    """
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    owners = [body for body in range(model.nbody) if collides[_geoms(model, body)].any()]
    possible = _supported(model, data, collides) and _bounds_hold(model, data, owners, collides)
    slots = {body: slot for slot, body in enumerate(owners)}
    members, counts, geoms, boxed = [], [], [np.empty((0, 2), dtype=np.int64)], []
    for body1, body2 in _body_pairs(model, owners) if possible else ():
        single = model.body_geomnum[body1] == model.body_geomnum[body2] == 1
        found = _geom_pairs(model, body1, body2, functions, in_order=not single)
        if len(found):
            members.append((slots[body1], slots[body2]))
            counts.append(len(found))
            geoms.append(found)
            boxed += [not single] * len(found)
    centre, radius, reach = _spheres(model, owners, collides)
    moves = model.body_weldid[owners] != 0
    owner = np.zeros(model.ngeom, dtype=np.int32)
    for body in owners:
        owner[_geoms(model, body)] = slots[body]
    group, parameters, margin = _parameters(model)
    return Pairs(
        bodies=np.array(owners, dtype=np.int32), centre=centre, radius=radius, reach=reach,
        shift=np.where(moves, SHIFT, 0.0), turn=np.where(moves, TURN, 0.0), reference=np.full((len(owners), 12), np.nan),
        moved=np.zeros(len(owners), dtype=np.uint8), num_near=np.zeros(len(members), dtype=np.int32),
        members=np.array(members, dtype=np.int32).reshape(-1, 2), first=np.cumsum([0, *counts]).astype(np.int32),
        geoms=np.concatenate(geoms).astype(np.int32), boxed=np.array(boxed, dtype=np.uint8),
        near=np.zeros(len(boxed), dtype=np.int32), axis=np.zeros(len(boxed), dtype=np.int32), owner=owner,
        kind=model.geom_type, rbound=model.geom_rbound, aabb=model.geom_aabb.reshape(-1, 6), size=model.geom_size,
        group=group, groups=int(group.max()) + 1, parameters=parameters, margin=margin, functions=functions,
        xpos=data.xpos, xmat=data.xmat, geom_xpos=data.geom_xpos, geom_xmat=data.geom_xmat, notes=notes(),
    )  # fmt: skip


def _geoms(model: Any, body: int) -> slice:
    return slice(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body])


def _supported(model: Any, data: Any, collides: NDArray[np.bool_]) -> bool:
    kinds = model.geom_type[collides]
    planes = collides & (model.geom_type == _PLANE)
    return bool(
        model.nflex == model.npair == model.nplugin == model.opt.enableflags == model.opt.disableflags == 0
        and model.nconmax != 0
        and (kinds != _HFIELD).all()
        and (kinds <= _MESH).all()
        and (model.body_weldid[model.geom_bodyid[planes]] == 0).all()
        and np.isin(data.geom_xmat[planes], (-1.0, 0.0, 1.0)).all()  # their boxes' far ends are rounded less then
        and np.isin(data.ximat[model.geom_bodyid[planes]], (-1.0, 0.0, 1.0)).all()
        and (model.geom_rbound[collides & ~planes] > 0).all()
    )


def _body_pairs(model: Any, owners: list[int]) -> Iterator[tuple[int, int]]:
    """Those that are not turned away for good, by their numbers; of two fixed ones none."""
    weld, excluded = model.body_weldid.tolist(), set(model.exclude_signature.tolist())
    parents = model.body_weldid[model.body_parentid[model.body_weldid]].tolist()
    for body1, body2 in itertools.combinations(owners, 2):
        weld1, weld2 = weld[body1], weld[body2]
        if weld1 == weld2 or (body1 << 16) + body2 in excluded:
            continue
        if weld1 and weld2 and (weld1 == parents[body2] or weld2 == parents[body1]):
            continue
        yield body1, body2


def _geom_pairs(
    model: Any, body1: int, body2: int, functions: NDArray[np.int64], *, in_order: bool
) -> NDArray[np.int64]:
    """(n, 2) pairs of two bodies' geoms, that with the lower type first.

    Args:
        in_order: of the geoms' numbers, as contacts found by MuJoCo's trees are sorted.
    """
    numbers = np.arange(model.ngeom)
    first, second = (
        grid.ravel()
        for grid in np.meshgrid(numbers[_geoms(model, body1)], numbers[_geoms(model, body2)], indexing="ij")
    )
    swap = model.geom_type[first] > model.geom_type[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    collide = functions[model.geom_type[first], model.geom_type[second]] != 0
    contype, conaffinity = model.geom_contype, model.geom_conaffinity
    collide &= ((contype[first] & conaffinity[second]) | (contype[second] & conaffinity[first])) != 0
    found = np.column_stack([first[collide], second[collide]])
    return found[np.lexsort((found[:, 1], found[:, 0]))] if in_order else found


def _spheres(model: Any, owners: list[int], collides: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Around the colliding geoms of each body, and the boxes around those: centre, radius, and radius with planes."""
    centre, radius, reach = np.zeros((len(owners), 3)), np.zeros(len(owners)), np.zeros(len(owners))
    extent = np.maximum(
        model.geom_rbound,
        np.linalg.norm(model.geom_aabb[:, :3], axis=1) + np.linalg.norm(model.geom_aabb[:, 3:], axis=1),
    )
    for slot, body in enumerate(owners):
        geoms = np.arange(model.ngeom)[_geoms(model, body)]
        geoms = geoms[collides[geoms]]
        bounded = geoms[model.geom_type[geoms] != _PLANE]
        if len(bounded):
            pos = model.geom_pos[bounded]
            centre[slot] = 0.5 * (pos.min(axis=0) + pos.max(axis=0))
            radius[slot] = (np.linalg.norm(pos - centre[slot], axis=1) + extent[bounded]).max()
        reach[slot] = radius[slot] if len(bounded) == len(geoms) else np.inf
    return centre, radius, reach


def _parameters(model: Any) -> tuple[NDArray[np.int32], Array, float]:
    """Geoms' groups of equal parameters, those of contacts between two groups, and the largest margin: `mj_contactParam`."""
    own = np.column_stack([
        model.geom_priority, model.geom_condim, model.geom_gap, model.geom_solmix, model.geom_solref, model.geom_solimp,
        model.geom_friction, model.geom_margin,
    ])  # fmt: skip
    kinds, group = np.unique(own, axis=0, return_inverse=True)
    parameters = np.empty((len(kinds), len(kinds), NUM_PARAMETERS))
    for at, (one, other) in enumerate(itertools.product(kinds, kinds)):
        parameters.reshape(-1, NUM_PARAMETERS)[at] = _contact_parameters(one, other)
    return group.reshape(-1).astype(np.int32), parameters.reshape(-1, NUM_PARAMETERS), float(model.geom_margin.max())


def _contact_parameters(one: Array, other: Array) -> Array:
    """Of contacts between geoms of two groups."""
    margin, gap = max(one[-1], other[-1]), max(one[2], other[2])
    if one[0] != other[0]:
        chosen = one if one[0] > other[0] else other
        dim, solref, solimp, friction = chosen[1], chosen[4:6], chosen[6:11], chosen[11:14]
    else:
        dim, friction = max(one[1], other[1]), np.maximum(one[11:14], other[11:14])
        mix = _mix(one[3], other[3])
        solref = np.minimum(one[4:6], other[4:6])
        if one[4] > 0 and other[4] > 0:
            solref = mix * one[4:6] + (1 - mix) * other[4:6]
        solimp = mix * one[6:11] + (1 - mix) * other[6:11]
    row = np.zeros(NUM_PARAMETERS)
    row[:NUM_COPIED] = [margin - gap, *friction[[0, 0, 1, 2, 2]], *solref, 0.0, 0.0, *solimp]
    row[MARGIN], row[CONTACT_DIM] = margin, dim
    return row


def _mix(one: float, other: float) -> float:
    if one >= MINVAL and other >= MINVAL:
        return float(one / (one + other))
    if one < MINVAL and other < MINVAL:
        return 0.5
    return 0.0 if one < MINVAL else 1.0


def _bounds_hold(model: Any, data: Any, owners: list[int], collides: NDArray[np.bool_]) -> bool:
    """Whether spheres, boxes and trees of boxes hold the geoms they are around, so that what touches is never turned away."""
    return all(_shape_is_held(model, geom) for geom in np.flatnonzero(collides).tolist()) and all(
        _tree_holds(model, data, body) for body in owners
    )


def _shape_is_held(model: Any, geom: int) -> bool:
    """Whether a geom lies in its box and in its sphere."""
    kind, size, box = model.geom_type[geom], model.geom_size[geom], model.geom_aabb[geom].reshape(2, 3)
    if kind == _PLANE:
        return bool((box[1, :2] >= _INFINITE).all() and box.sum(axis=0)[2] >= 0.0)
    if kind == _MESH:
        mesh = model.geom_dataid[geom]
        points = model.mesh_vert[model.mesh_vertadr[mesh] : model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh]]
    else:
        half = {
            mujoco.mjtGeom.mjGEOM_SPHERE: size[[0, 0, 0]],
            mujoco.mjtGeom.mjGEOM_CAPSULE: np.array([size[0], size[0], size[0] + size[1]]),
            mujoco.mjtGeom.mjGEOM_CYLINDER: size[[0, 0, 1]],
        }.get(mujoco.mjtGeom(kind), size)
        points = np.array([half, -half])
    tolerance = _MESH_TOLERANCE if kind == _MESH else _TOLERANCE
    held = (np.abs(points - box[0]) <= box[1] + tolerance).all()
    if kind in {_MESH, mujoco.mjtGeom.mjGEOM_BOX}:
        held &= (np.linalg.norm(points, axis=1) <= model.geom_rbound[geom] + tolerance).all()
    else:
        farthest = np.hypot(size[0], size[1]) if kind == mujoco.mjtGeom.mjGEOM_CYLINDER else np.abs(points).max()
        held &= farthest <= model.geom_rbound[geom] + _TOLERANCE
    return bool(held)


def _tree_holds(model: Any, data: Any, body: int) -> bool:
    """Whether each box of a body's tree holds the boxes of all colliding geoms below it, and the tree has all of those."""
    first, count = model.body_bvhadr[body], model.body_bvhnum[body]
    if first < 0:
        return False
    children, names = model.bvh_child[first : first + count], model.bvh_nodeid[first : first + count]
    boxes = model.bvh_aabb[first : first + count]
    frame, origin = data.ximat[body].reshape(3, 3), data.xipos[body]
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))
    below: list[list[int]] = [[] for _ in range(count)]
    lowest, highest = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    for node in reversed(range(count)):  # children come after their parents
        if (children[node] < 0).all():
            geom = int(names[node])
            below[node] = [geom]
            box = model.geom_aabb[geom].reshape(-1)
            corners = data.geom_xpos[geom] + (box[:3] + signs * box[3:]) @ data.geom_xmat[geom].reshape(3, 3).T
            local = (corners - origin) @ frame
            lowest[node], highest[node] = local.min(axis=0), local.max(axis=0)
        for child in children[node][children[node] >= 0]:
            below[node] += below[child]
            lowest[node], highest[node] = (
                np.minimum(lowest[node], lowest[child]),
                np.maximum(highest[node], highest[child]),
            )
    middle, half = boxes[:, :3], boxes[:, 3:]
    tolerance = _TOLERANCE + _ROUNDING * np.maximum(np.abs(lowest), np.abs(highest))
    if not ((lowest >= middle - half - tolerance) & (highest <= middle + half + tolerance)).all():
        return False
    geoms = np.arange(model.ngeom)[_geoms(model, body)]
    colliding = geoms[(model.geom_contype[geoms] != 0) | (model.geom_conaffinity[geoms] != 0)]
    return set(below[0]) == set(colliding.tolist())
