"""Costs, forces and states of constraints as MuJoCo's `mj_constraintUpdate` has them (engine_core_constraint.c).

See `constraint_solver`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import compiled

Array = NDArray[np.float64]
Bytes = NDArray[np.uint8]

SATISFIED, QUADRATIC, LINEARNEG, LINEARPOS, CONE = range(5)  # mjtConstraintState
MAX_DIM = 6
"""Rows of a contact at most: the normal, two tangents, and torsion or rolling; without friction 1."""


class Constraints(NamedTuple):
    """What MuJoCo's constraints are made of; the first `num_friction` rows are joints' friction."""

    num_friction: int
    stiffness: Array
    """(nefc,) `efc_D`."""
    regularizer: Array
    """(nefc,) `efc_R`."""
    aref: Array
    """(nefc,) reference acceleration."""
    friction_loss: Array
    """(nefc,)"""
    heights: Bytes
    """(nefc,) in a contact's first row how many it has, three or more; 0 for others than contacts with friction."""
    cone: Array
    """(nefc,) a contact's mu and its friction coefficients, each in one of its rows."""


@compiled
def _joint_friction(x: float, stiffness: float, regularizer: float, loss: float) -> tuple[float, float, int]:
    """Cost, force and state."""
    bound = regularizer * loss
    if x <= -bound:
        return -0.5 * regularizer * loss * loss - loss * x, loss, LINEARNEG
    if x >= bound:
        return -0.5 * regularizer * loss * loss + loss * x, -loss, LINEARPOS
    return 0.5 * stiffness * x * x, -stiffness * x, QUADRATIC


@compiled
def constraint_cost(constraints: Constraints, jar: Array) -> float:
    """The cost that `mj_constraintUpdate` computes; nothing else of it."""
    nf, stiffness, cone = constraints.num_friction, constraints.stiffness, constraints.cone
    cost = 0.0
    row, n = 0, len(jar)
    while row < n:
        x, d, height = jar[row], stiffness[row], constraints.heights[row]
        if row < nf:
            cost += _joint_friction(x, d, constraints.regularizer[row], constraints.friction_loss[row])[0]
            row += 1
        elif not height:
            if x < 0:
                cost += 0.5 * d * x * x
            row += 1
        else:
            m = cone[row]
            normal = x * m
            tangent = 0.0
            for j in range(row + 1, row + height):
                u = jar[j] * cone[j]
                tangent += u * u
            tangent = math.sqrt(tangent)
            if normal >= m * tangent or (tangent <= 0 and normal >= 0):
                pass
            elif m * normal + tangent <= 0 or (tangent <= 0 and normal < 0):
                for j in range(row, row + height):
                    cost += 0.5 * stiffness[j] * jar[j] * jar[j]
            else:
                slide = normal - m * tangent
                cost += 0.5 * (d / (m * m * (1 + m * m))) * slide * slide
            row += height
    return cost


@compiled
def update_constraints(
    constraints: Constraints, jar: Array, force: Array, state: Bytes, cone_hessian: Array
) -> tuple[float, int]:
    """`mj_constraintUpdate`: forces, states and cones' Hessians; returns the cost and how many rows are in cones."""
    nf, stiffness, cone = constraints.num_friction, constraints.stiffness, constraints.cone
    cost = 0.0
    cones = 0
    row, n = 0, len(jar)
    while row < n:
        x, d, height = jar[row], stiffness[row], constraints.heights[row]
        if row < nf:
            added, force[row], state[row] = _joint_friction(
                x, d, constraints.regularizer[row], constraints.friction_loss[row]
            )
            cost += added
            row += 1
        elif not height:
            if x >= 0:
                force[row] = 0.0
                state[row] = SATISFIED
            else:
                cost += 0.5 * d * x * x
                force[row] = -d * x
                state[row] = QUADRATIC
            row += 1
        else:
            m = cone[row]
            normal = x * m
            tangent = 0.0
            for j in range(row + 1, row + height):
                force[j] = jar[j] * cone[j]  # for now
                tangent += force[j] * force[j]
            tangent = math.sqrt(tangent)
            found = CONE
            if normal >= m * tangent or (tangent <= 0 and normal >= 0):
                found = SATISFIED
                for j in range(row, row + height):
                    force[j] = 0.0
            elif m * normal + tangent <= 0 or (tangent <= 0 and normal < 0):
                found = QUADRATIC
                for j in range(row, row + height):
                    cost += 0.5 * stiffness[j] * jar[j] * jar[j]
                    force[j] = -stiffness[j] * jar[j]
            else:
                cones += height
                dm = d / (m * m * (1 + m * m))
                slide = normal - m * tangent
                cost += 0.5 * dm * slide * slide
                force[row] = -dm * slide * m
                _cone_hessian(normal, tangent, dm, force, cone, row, height, cone_hessian)
                for j in range(row + 1, row + height):
                    force[j] = -force[row] / tangent * force[j] * cone[j]
            for j in range(row, row + height):
                state[j] = found
            row += height
    return cost, cones


@compiled
def _cone_hessian(
    normal: float, tangent: float, dm: float, u: Array, cone: Array, row: int, height: int, hessian: Array
) -> None:
    """Second derivatives of a sliding contact's cost: (height, height) at 6 row in `hessian`; `u` from row + 1 on."""
    at, mu = MAX_DIM * row, cone[row]
    hessian[at] = 1.0
    scale = -mu / tangent
    for j in range(1, height):
        hessian[at + j] = scale * u[row + j]
    scale = mu * normal / (tangent * tangent * tangent)
    for k in range(1, height):
        for j in range(k, height):
            hessian[at + height * k + j] = scale * u[row + j] * u[row + k]
    scale = mu * mu - mu * normal / tangent
    for j in range(1, height):
        hessian[at + height * j + j] += scale
    for k in range(height):
        scale = dm * cone[row + k]
        for j in range(k, height):
            hessian[at + height * k + j] *= scale * cone[row + j]
    for k in range(height):
        for j in range(k + 1, height):
            hessian[at + height * j + k] = hessian[at + height * k + j]


@compiled
def gauss_cost(ma: Array, smooth_force: Array, acceleration: Array, smooth: Array, cost: float) -> float:
    """`cost` and the Gauss cost, added up element by element."""
    for i in range(len(ma)):
        cost += 0.5 * (ma[i] - smooth_force[i]) * (acceleration[i] - smooth[i])
    return cost
