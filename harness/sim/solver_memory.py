"""What the compiled solver keeps from one call to the next, and where it finds MuJoCo's arrays: a table of addresses.

See `constraint_solver`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from harness.sim.compiled import compiled
from harness.sim.constraint_rows import Bodies, build, count_rows
from harness.sim.contact_costs import Constraints
from harness.sim.contact_layout import NUM_INTS, NUM_WORDS
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


def _make_pointer(context: Any, address: Any) -> Any:
    """An address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


pointer: Any = intrinsic(_make_pointer)


@compiled
def floats(addresses: Addresses, field: int, n: int) -> Array:
    return carray(pointer(addresses[field]), n, np.float64)


@compiled
def ints(addresses: Addresses, field: int, n: int) -> Ints:
    return carray(pointer(addresses[field]), n, np.int32)


@compiled
def longs(addresses: Addresses, field: int, n: int) -> Addresses:
    return carray(pointer(addresses[field]), n, np.int64)


@compiled
def bytes_(addresses: Addresses, field: int, n: int) -> Bytes:
    return carray(pointer(addresses[field]), n, np.uint8)


@compiled
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


@compiled
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


@compiled
def load_motion(addresses: Addresses, nv: int) -> Motion:
    return Motion(
        floats(addresses, SMOOTH, nv),
        floats(addresses, SMOOTH_FORCE, nv),
        floats(addresses, ACCELERATION, nv),
        floats(addresses, WARMSTART, nv),
        floats(addresses, CONSTRAINT_FORCE, nv),
    )


@compiled
def _load_bodies(addresses: Addresses, settings: Settings) -> Bodies:
    nv, nf, limits, ngeom = addresses[NV], addresses[NF], addresses[NUM_LIMITS], addresses[NGEOM]
    return Bodies(
        ints(addresses, PARENT, nv),
        ints(addresses, SIMPLE, nv),
        ints(addresses, FRICTION_DOFS, nf),
        floats(addresses, FRICTION_ROWS, 4 * nf).reshape(nf, 4),
        ints(addresses, LIMIT_INDEX, 2 * limits).reshape(limits, 2),
        floats(addresses, LIMIT_ROWS, 11 * limits).reshape(limits, 11),
        ints(addresses, GEOM_DOF, ngeom),
        ints(addresses, GEOM_ROOT, ngeom),
        floats(addresses, GEOM_WEIGHT, ngeom),
        longs(addresses, GEOM_BLOCKS, ngeom),
        floats(addresses, QPOS, addresses[NQ]),
        floats(addresses, QVEL, nv),
        floats(addresses, VELOCITY, padded(nv)),
        floats(addresses, CDOF, 6 * nv).reshape(nv, 6),
        floats(addresses, COM, 3 * addresses[NBODY]).reshape(addresses[NBODY], 3),
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
    numbers = carray(pointer(contacts), (num_contacts, NUM_WORDS), np.float64)
    integers = carray(pointer(contacts), (num_contacts, NUM_INTS), np.int32)
    nefc = count_rows(bodies, numbers, integers)
    addresses[NEFC], addresses[KNOWN] = nefc, 0
    if nefc <= addresses[CAPACITY]:
        build(load_rows(addresses, addresses[NV]), load_constraints(addresses), bodies, numbers, integers)
    return nefc
