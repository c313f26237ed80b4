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
from harness.sim.contact_costs import Constraints
from harness.sim.sparse_rows import Rows, compress, couple, padded

Array = NDArray[np.float64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Addresses = NDArray[np.int64]

NUM_FIELDS = 22
_FIELDS = (
    NEFC, NF, KNOWN, SMOOTH, SMOOTH_FORCE, ACCELERATION, WARMSTART, CONSTRAINT_FORCE, STIFFNESS, REGULARIZER,
    AREF, FRICTION_LOSS, HEIGHTS, CONES, START, COLUMN, VALUE, ENVELOPE, FACTOR, STATE, SMOOTH_COST, LAST,
) = range(NUM_FIELDS)  # fmt: skip
"""What the compiled functions find where: handing over thirty arrays would take as long as the solution. Three numbers, mujoco's
arrays, and those that one call leaves to the next."""
_CONTACT_BYTES = 576
FRICTION, _MU = 14, 28
"""Where a contact has them, in eight bytes (`mjContact` in mjdata.h)."""
_CONTACT_DIM, _GEOM, _EFC_ADDRESS = 130, 133, 142
"""Likewise, in four bytes."""


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
def begin(
    addresses: Addresses, parent: Ints, simple: Ints, geom_blocks: Addresses, jacobian: Array, stiffness: Array,
    regularizer: Array, aref: Array, friction_loss: Array, num_friction: int, contacts: int, num_contacts: int,
) -> None:  # fmt: skip
    """What the solutions of one substep share.

    Args:
        addresses: see `_FIELDS`; what MuJoCo makes anew in every substep is entered here.
        parent, simple: `dof_parentid` and `dof_simplenum`.
        geom_blocks: (ngeom,) a bit for each four degrees of freedom of which one moves the geom.
        jacobian: (nefc nv,)
        stiffness, regularizer, aref, friction_loss: (nefc,) see `Constraints`.
        contacts: address of mujoco's.
    """
    nv, nefc = len(parent), len(stiffness)
    addresses[NEFC], addresses[NF], addresses[KNOWN] = nefc, num_friction, 0
    addresses[STIFFNESS], addresses[REGULARIZER] = stiffness.ctypes.data, regularizer.ctypes.data
    addresses[AREF], addresses[FRICTION_LOSS] = aref.ctypes.data, friction_loss.ctypes.data
    rows, constraints = load_rows(addresses, nv), load_constraints(addresses)
    heights, cone = constraints.heights, constraints.cone
    for i in range(nv):
        j = i  # the inertia couples a degree of freedom with those above it
        while parent[j] >= 0 and not simple[i]:
            j = parent[j]
        rows.envelope[i] = j
    dense = jacobian.reshape(nefc, nv)
    numbers = carray(pointer(contacts), (num_contacts, _CONTACT_BYTES // 8), np.float64)
    integers = carray(pointer(contacts), (num_contacts, _CONTACT_BYTES // 4), np.int32)
    everything = (1 << (padded(nv) // 4)) - 1
    row = n = at = 0
    while row < nefc:
        while at < num_contacts and integers[at, _EFC_ADDRESS] < row:  # those that are left out have -1
            at += 1
        height, blocks = 1, everything
        heights[row] = 0
        if at < num_contacts and integers[at, _EFC_ADDRESS] == row:
            height = integers[at, _CONTACT_DIM]
            blocks = geom_blocks[integers[at, _GEOM]] | geom_blocks[integers[at, _GEOM + 1]]
            if height > 1:
                heights[row] = height
                cone[row] = numbers[at, _MU]
                for k in range(1, height):
                    cone[row + k] = numbers[at, FRICTION + k - 1]
        for k in range(row, row + height):
            rows.start[k] = n
            n = compress(rows, dense, k, blocks, n)
        couple(rows, rows.start[row], n)
        row += height
    rows.start[nefc] = n
    for i in range(nv):
        for j in range(rows.envelope[i], i + 1):
            rows.last[j] = i
