"""What the compiled solver keeps from one call to the next, and where it finds MuJoCo's arrays: a table of addresses.

See `constraint_solver`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import allocating, compiled
from harness.sim.constraint_rows import Bodies, build, count_rows
from harness.sim.contact_costs import Constraints
from harness.sim.contact_layout import NUM_INTS, NUM_WORDS
from harness.sim.packed import bytes_at, float_rows, floats_at, int_rows, ints_at, longs_at
from harness.sim.sparse_rows import Rows, padded

Array = NDArray[np.float64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Addresses = NDArray[np.int64]

NUM_FIELDS = 43
_FIELDS = (
    NEFC, NF, KNOWN, CAPACITY, NV, NQ, NGEOM, NBODY, NUM_LIMITS,
    SMOOTH, SMOOTH_FORCE, ACCELERATION, WARMSTART, CONSTRAINT_FORCE, STIFFNESS, REGULARIZER,
    AREF, FRICTION_LOSS, HEIGHTS, CONES, START, COLUMN, VALUE, ENVELOPE, FACTOR, STATE, SMOOTH_COST, LAST,
    PARENT, SIMPLE, FRICTION_DOFS, FRICTION_ROWS, LIMIT_INDEX, LIMIT_ROWS, GEOM_DOF, GEOM_ROOT, GEOM_WEIGHT, GEOM_BLOCKS,
    QPOS, QVEL, VELOCITY, CDOF, COM,
) = range(NUM_FIELDS)  # fmt: skip
"""What the compiled functions find where: handing over forty arrays would take as long as the solution. Some numbers, the model's and
the state's arrays, and those that one call leaves to the next."""


class Settings(NamedTuple):
    """MuJoCo's options for constraints."""

    impratio: float
    timestep: float


class Motion(NamedTuple):
    """MuJoCo's vectors (nv,) of a solution."""

    smooth: Array
    """Accelerations without constraints."""
    smooth_force: Array
    acceleration: Array
    warmstart: Array
    constraint_force: Array


@allocating
def floats(addresses: Addresses, field: int, n: int) -> Array:
    return floats_at(addresses[field], n)


@allocating
def ints(addresses: Addresses, field: int, n: int) -> Ints:
    return ints_at(addresses[field], n)


@allocating
def longs(addresses: Addresses, field: int, n: int) -> Addresses:
    return longs_at(addresses[field], n)


@allocating
def bytes_(addresses: Addresses, field: int, n: int) -> Bytes:
    return bytes_at(addresses[field], n)


@allocating
def load_rows(addresses: Addresses, nv: int) -> Rows:
    nefc = addresses[NEFC]
    size = nefc * padded(nv)
    return Rows(
        ints(addresses, START, nefc + 1),
        ints(addresses, COLUMN, size // 4),
        floats(addresses, VALUE, size),
        ints(addresses, ENVELOPE, nv),
        ints(addresses, LAST, nv),
    )


@allocating
def load_constraints(addresses: Addresses) -> Constraints:
    nefc, nf = addresses[NEFC], addresses[NF]
    return Constraints(
        nf,
        floats(addresses, STIFFNESS, nefc),
        floats(addresses, REGULARIZER, nefc),
        floats(addresses, AREF, nefc),
        floats(addresses, FRICTION_LOSS, nefc),
        bytes_(addresses, HEIGHTS, nefc),
        floats(addresses, CONES, nefc),
    )


@allocating
def load_motion(addresses: Addresses, nv: int) -> Motion:
    return Motion(
        floats(addresses, SMOOTH, nv),
        floats(addresses, SMOOTH_FORCE, nv),
        floats(addresses, ACCELERATION, nv),
        floats(addresses, WARMSTART, nv),
        floats(addresses, CONSTRAINT_FORCE, nv),
    )


@allocating
def _load_bodies(addresses: Addresses, settings: Settings) -> Bodies:
    nv, nf, limits, ngeom = addresses[NV], addresses[NF], addresses[NUM_LIMITS], addresses[NGEOM]
    return Bodies(
        ints(addresses, PARENT, nv),
        ints(addresses, SIMPLE, nv),
        ints(addresses, FRICTION_DOFS, nf),
        float_rows(addresses[FRICTION_ROWS], nf, 4),
        int_rows(addresses[LIMIT_INDEX], limits, 2),
        float_rows(addresses[LIMIT_ROWS], limits, 11),
        ints(addresses, GEOM_DOF, ngeom),
        ints(addresses, GEOM_ROOT, ngeom),
        floats(addresses, GEOM_WEIGHT, ngeom),
        longs(addresses, GEOM_BLOCKS, ngeom),
        floats(addresses, QPOS, addresses[NQ]),
        floats(addresses, QVEL, nv),
        floats(addresses, VELOCITY, padded(nv)),
        float_rows(addresses[CDOF], nv, 6),
        float_rows(addresses[COM], addresses[NBODY], 3),
        settings.impratio,
        settings.timestep,
    )


@compiled
def begin(addresses: Addresses, settings: Settings, contacts: int, num_contacts: int) -> int:
    """What the solutions of one substep share: the constraints, where there is room for them.

    Args:
        addresses: see `_FIELDS`.
        contacts: address of mujoco's.

    Returns:
        How many constraints there are.
    """
    bodies = _load_bodies(addresses, settings)
    numbers = float_rows(contacts, num_contacts, NUM_WORDS)
    integers = int_rows(contacts, num_contacts, NUM_INTS)
    nefc = count_rows(bodies, numbers, integers)
    addresses[NEFC], addresses[KNOWN] = nefc, 0
    if nefc <= addresses[CAPACITY]:
        build(load_rows(addresses, addresses[NV]), load_constraints(addresses), bodies, numbers, integers)
    return nefc
