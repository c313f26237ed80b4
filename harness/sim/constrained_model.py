"""What the constraint solver takes from a model, and whether it can.

See `constraint_solver`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim import solver_memory as memory
from harness.sim.constraint_rows import parameters
from harness.sim.stack import mujoco

_VERSION = "3.2.3"
_SPARSE_FROM = 60
"""Degrees of freedom from which on MuJoCo stores the Jacobian without zeros, and adds in another order."""


def supported(model: Any) -> bool:
    """Whether a model's constraints are of the kinds that are written out here; all of LIBERO's are."""
    option = model.opt
    dense = option.jacobian in {mujoco.mjtJacobian.mjJAC_DENSE, mujoco.mjtJacobian.mjJAC_AUTO}
    turning = model.jnt_type == mujoco.mjtJoint.mjJNT_BALL
    return bool(
        mujoco.__version__ == _VERSION
        and dense
        and model.nv < _SPARSE_FROM
        and option.solver == mujoco.mjtSolver.mjSOL_NEWTON
        and option.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
        and option.noslip_iterations == option.disableflags == option.enableflags == 0
        and model.neq == model.npair == model.nflex == model.nplugin == model.ntendon == 0
        and np.isin(model.geom_condim, (1, 3, 4)).all()
        and not model.jnt_limited[turning].any()
        and all((solref > 0).all() for solref in (model.geom_solref, model.jnt_solref, model.dof_solref))
    )


def constants(model: Any) -> dict[int, NDArray[Any]]:
    """What `constraint_rows.Bodies` has of a model, by the fields of `solver_memory`."""
    friction_dofs = np.flatnonzero(model.dof_frictionloss > 0).astype(np.int32)
    friction_rows = np.zeros((len(friction_dofs), 4))
    for row, dof in zip(friction_rows, friction_dofs, strict=True):
        regularizer, _, b, _ = parameters(
            model.dof_solref[dof], 0, model.dof_solimp[dof], 0, 0.0, model.dof_invweight0[dof], model.opt.timestep
        )
        row[:] = model.dof_frictionloss[dof], 1.0 / regularizer, regularizer, b
    limited = np.flatnonzero(model.jnt_limited)
    dofs = model.jnt_dofadr[limited]
    limit_rows = np.column_stack([
        model.jnt_range[limited], model.jnt_margin[limited], model.jnt_solref[limited], model.jnt_solimp[limited],
        model.dof_invweight0[dofs],
    ])  # fmt: skip
    bodies = model.geom_bodyid
    return {
        memory.FRICTION_DOFS: friction_dofs,
        memory.FRICTION_ROWS: friction_rows,
        memory.LIMIT_INDEX: np.column_stack([model.jnt_qposadr[limited], dofs]).astype(np.int32),
        memory.LIMIT_ROWS: np.ascontiguousarray(limit_rows),
        memory.GEOM_DOF: _last_dofs(model)[bodies],
        memory.GEOM_ROOT: model.body_rootid[bodies],
        memory.GEOM_WEIGHT: np.ascontiguousarray(model.body_invweight0[bodies, 0]),
        memory.GEOM_BLOCKS: _moving_blocks(model)[bodies],
    }


def _last_dofs(model: Any) -> NDArray[np.int32]:
    """(nbody,) the last degree of freedom that moves a body; -1 for none."""
    last = np.full(model.nbody, -1, dtype=np.int32)
    for body in range(1, model.nbody):
        count = model.body_dofnum[body]
        last[body] = model.body_dofadr[body] + count - 1 if count else last[model.body_parentid[body]]
    return last


def _moving_blocks(model: Any) -> NDArray[np.int64]:
    """(nbody,) a bit for each four degrees of freedom of which one moves the body."""
    blocks = np.zeros(model.nbody, dtype=np.int64)
    for body in range(1, model.nbody):
        dofs = range(model.body_dofadr[body], model.body_dofadr[body] + model.body_dofnum[body])
        blocks[body] = blocks[model.body_parentid[body]]
        for dof in dofs:
            blocks[body] |= 1 << (dof // 4)
    return blocks
