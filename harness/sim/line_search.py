"""The line search of MuJoCo's Newton solver (`CGsearch` in engine_solver.c), operation for operation.

See `constraint_solver`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import compiled
from harness.sim.contact_costs import Constraints
from harness.sim.envelope_factor import MINVAL

Array = NDArray[np.float64]
Point = tuple[float, float, float, float]
"""Step length, cost, first and second derivative."""


class Line(NamedTuple):
    """The cost along a search direction."""

    constraints: Constraints
    jar: Array
    """(nefc,) J a - aref where the search begins."""
    jv: Array
    """(nefc,) its change per unit of step length."""
    quad: Array
    """(3 nefc,) see `prepare`."""
    gauss: tuple[float, float, float]
    """Coefficients of the Gauss cost."""


@compiled
def prepare(constraints: Constraints, jar: Array, jv: Array, quad: Array) -> None:
    """`CGprepare`: each constraint's cost along the search direction, quadratic in the step length.

    Args:
        quad: (3 nefc,), to be filled; what a contact's second and third row have is its cone's coefficients.
    """
    stiffness, heights, cone = constraints.stiffness, constraints.heights, constraints.cone
    row, n = 0, len(jar)
    while row < n:
        d, x, v, at = stiffness[row], jar[row], jv[row], 3 * row
        dx = d * x
        q0, q1, q2 = x * dx, v * dx, v * d * v
        height = max(1, heights[row])
        if height > 1:
            m = cone[row]
            uu = uv = vv = 0.0
            for j in range(1, height):
                xj, vj, dj = jar[row + j], jv[row + j], stiffness[row + j]
                dxj = dj * xj
                q0 += xj * dxj
                q1 += vj * dxj
                q2 += vj * dj * vj
                u, w = xj * cone[row + j], vj * cone[row + j]
                uu += u * u
                uv += u * w
                vv += w * w
            quad[at + 3] = x * m
            quad[at + 4] = v * m
            quad[at + 5] = uu
            quad[at + 6] = uv
            quad[at + 7] = vv
            quad[at + 8] = d / ((m * m) * (1 + (m * m)))
        quad[at] = q0 * 0.5
        quad[at + 1] = q1
        quad[at + 2] = q2 * 0.5
        row += height


@compiled
def evaluate(line: Line, alpha: float) -> Point:
    """`CGeval`: cost and derivatives at a step length."""
    constraints, jar, jv, quad = line.constraints, line.jar, line.jv, line.quad
    cost = first = second = 0.0
    t0, t1, t2 = line.gauss
    row, n = 0, len(jar)
    while row < n:
        at = 3 * row
        height = 1
        quadratic = False
        if row < constraints.num_friction:
            start, direction, f = jar[row], jv[row], constraints.friction_loss[row]
            x = start + alpha * direction
            rf = constraints.regularizer[row] * f
            if -rf < x < rf:
                quadratic = True
            elif x <= -rf:
                t0 += f * (-0.5 * rf - start)
                t1 += -f * direction
            else:
                t0 += f * (-0.5 * rf + start)
                t1 += f * direction
        elif constraints.heights[row]:
            height = constraints.heights[row]
            quadratic, c0, c1, c2 = _cone(quad, at, constraints.cone[row], alpha)
            cost += c0
            first += c1
            second += c2
        else:
            quadratic = jar[row] + alpha * jv[row] < 0
        if quadratic:
            t0 += quad[at]
            t1 += quad[at + 1]
            t2 += quad[at + 2]
        row += height
    cost += alpha * alpha * t2 + alpha * t1 + t0
    first += 2 * alpha * t2 + t1
    second += 2 * t2
    if second <= 0:
        second = MINVAL
    return alpha, cost, first, second


@compiled
def _cone(quad: Array, at: int, mu: float, alpha: float) -> tuple[bool, float, float, float]:
    """A contact at a step length: whether it sticks, and cost and derivatives where it slides."""
    normal = quad[at + 3] + alpha * quad[at + 4]
    uv, vv = quad[at + 6], quad[at + 7]
    square = quad[at + 5] + alpha * (2 * uv + alpha * vv)
    if square <= 0:
        return normal < 0, 0.0, 0.0, 0.0
    tangent = math.sqrt(square)
    if normal >= mu * tangent:
        return False, 0.0, 0.0, 0.0
    if mu * normal + tangent <= 0:
        return True, 0.0, 0.0, 0.0
    dm, n1 = quad[at + 8], quad[at + 4]
    tangent1 = (uv + alpha * vv) / tangent
    tangent2 = vv / tangent - (uv + alpha * vv) * tangent1 / (tangent * tangent)
    slide, slide1 = normal - mu * tangent, n1 - mu * tangent1
    return (
        False,
        0.5 * dm * slide * slide,
        dm * slide * slide1,
        dm * (slide1 * slide1 + slide * (-mu * tangent2)),
    )


@compiled
def _better(point: Point, candidates: tuple[Point, Point, Point]) -> tuple[bool, Point]:
    """`updateBracket` without its evaluation: the bracket's end after a look at three candidates."""
    updated = False
    for candidate in candidates:
        same_side = (point[2] < 0 and candidate[2] < 0 and point[2] < candidate[2]) or (
            point[2] > 0 and candidate[2] > 0 and point[2] > candidate[2]
        )
        if same_side:
            point = candidate
            updated = True
    return updated, point


@compiled
def search(line: Line, gradient_tolerance: float, max_evaluations: int) -> float:
    """The step length; 0 where there is nothing to be gained."""
    p0 = evaluate(line, 0.0)
    p1 = evaluate(line, p0[0] - p0[2] / p0[3])
    evaluations = 2
    if p0[1] < p1[1]:
        p1 = p0
    if abs(p1[2]) < gradient_tolerance:
        return p1[0]
    direction = 1 if p1[2] < 0 else -1
    p2 = p1
    bracketed = False
    while p1[2] * direction <= -gradient_tolerance and evaluations < max_evaluations:
        p2 = p1
        bracketed = True
        p1 = evaluate(line, p1[0] - p1[2] / p1[3])
        evaluations += 1
        if abs(p1[2]) < gradient_tolerance:
            return p1[0]
    if evaluations >= max_evaluations or not bracketed:
        return p1[0]
    return _search_bracket(line, gradient_tolerance, max_evaluations - evaluations, (p0, p1, p2))


@compiled
def _search_bracket(
    line: Line, gradient_tolerance: float, max_evaluations: int, points: tuple[Point, Point, Point]
) -> float:
    """The search goes on between two points; the first of three is where it began."""
    p0, p1, p2 = points
    p2_next = p1
    p1_next = evaluate(line, p1[0] - p1[2] / p1[3])
    evaluations = 1
    while evaluations < max_evaluations:
        middle = evaluate(line, 0.5 * (p1[0] + p2[0]))
        evaluations += 1
        candidates = (p1_next, p2_next, middle)
        best, best_cost = -1, 0.0
        for i in range(3):
            if abs(candidates[i][2]) < gradient_tolerance and (best == -1 or candidates[i][1] < best_cost):
                best, best_cost = i, candidates[i][1]
        if best >= 0:
            return candidates[best][0]
        updated1, p1 = _better(p1, candidates)
        if updated1:
            p1_next = evaluate(line, p1[0] - p1[2] / p1[3])
            evaluations += 1
        updated2, p2 = _better(p2, candidates)
        if updated2:
            p2_next = evaluate(line, p2[0] - p2[2] / p2[3])
            evaluations += 1
        if not updated1 and not updated2:
            return middle[0]
    if p1[1] <= p2[1] and p1[1] < p0[1]:
        return p1[0]
    if p2[1] <= p1[1] and p2[1] < p0[1]:
        return p2[0]
    return 0.0
