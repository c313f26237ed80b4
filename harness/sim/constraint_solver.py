"""MuJoCo's Newton solver for contacts and joint friction: the same numbers, without multiplying by zeros.

MuJoCo 3.2.3 stores the constraint Jacobian of a LIBERO scene as a dense matrix, of which nine tenths are zeros, and computes each
solution from nothing. Adding a product with zero changes no number, so here they are left out; and what the three solutions of a
substep share is computed once. Every operation that remains is the one of `mj_fwdConstraint` (engine_forward.c) and `mj_solNewton`
(engine_solver.c), in its order.

MuJoCo is by Google DeepMind, under the Apache License 2.0; what it computes is followed here function by function.

Notation follows MuJoCo: `jar` is J a - aref, `ma` is M a, a cone the friction of one contact.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim import solver_memory as memory
from harness.sim.compiled import allocating, compiled
from harness.sim.constrained_model import constants, supported
from harness.sim.contact_costs import (
    MAX_DIM,
    QUADRATIC,
    Constraints,
    constraint_cost,
    gauss_cost,
    update_constraints,
)  # fmt: skip
from harness.sim.contact_layout import FRICTION
from harness.sim.envelope_factor import MINVAL, add_cones, back_substitute, cholesky_update, factor_hessian
from harness.sim.line_search import Line, prepare, search
from harness.sim.packed import Longs, loader, pack
from harness.sim.solver_memory import (
    CONES,
    FACTOR,
    HEIGHTS,
    KNOWN,
    NEFC,
    SMOOTH_COST,
    STATE,
    Motion,
    Settings,
    bytes_,
    floats,
    load_constraints,
    load_motion,
    load_rows,
)  # fmt: skip
from harness.sim.solver_memory import begin as begin_constraints
from harness.sim.sparse_rows import (
    Inertia,
    Rows,
    copy,
    dot,
    multiply,
    multiply_inertia,
    multiply_transposed,
    padded,
)
from harness.sim.stack import mujoco

Array = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Addresses = NDArray[np.int64]

TRIALS = 150
"""Solutions computed both ways: those of two control steps."""


class Options(NamedTuple):
    """MuJoCo's."""

    scale: float
    """Of costs and gradients."""
    tolerance: float
    line_search_tolerance: float
    iterations: int
    line_search_iterations: int


class Problem(NamedTuple):
    """What does not change between solutions, but for the arrays' contents."""

    addresses: Longs
    """See `solver_memory`."""
    options: Options
    settings: Settings
    inertia: Inertia


_load = loader(Problem)


class Guess(NamedTuple):
    """Where the iterations stand, but for the acceleration itself."""

    jar: Array
    ma: Array
    force: Array
    state: Bytes
    cone_hessian: Array
    work: Array
    """(whole blocks,)"""


@compiled
def _acceleration_error(
    constraints: Constraints, rows: Rows, acceleration: Array, padded_vector: Array, jar: Array
) -> None:
    """`jar` of an acceleration."""
    for i in range(len(acceleration)):
        padded_vector[i] = acceleration[i]
    multiply(rows, padded_vector, jar)
    for row in range(len(jar)):
        jar[row] -= constraints.aref[row]


@allocating
def _first_guess(
    constraints: Constraints,
    rows: Rows,
    inertia: Inertia,
    motion: Motion,
    guess: Guess,
    smooth_cost: Array,
    new_forces: bool,
) -> tuple[float, int]:
    """`warmstart`: begin at the better of two, the last solution and what would happen without constraints.

    Returns:
        The constraints' cost, and how many of their rows are in cones.
    """
    vector = np.zeros(len(guess.work))
    _acceleration_error(constraints, rows, motion.warmstart, vector, guess.jar)
    multiply_inertia(inertia, motion.warmstart, guess.ma)
    cost, cones = update_constraints(constraints, guess.jar, guess.force, guess.state, guess.cone_hessian)
    copy(motion.warmstart, motion.acceleration)
    whole = gauss_cost(guess.ma, motion.smooth_force, motion.warmstart, motion.smooth, cost)
    if new_forces or whole > smooth_cost[0]:
        jar = np.empty(len(guess.jar))
        _acceleration_error(constraints, rows, motion.smooth, vector, jar)
        smooth_cost[0] = constraint_cost(constraints, jar)
        if whole > smooth_cost[0]:
            copy(motion.smooth, motion.acceleration)
            copy(jar, guess.jar)
            multiply_inertia(inertia, motion.smooth, guess.ma)
            cost, cones = update_constraints(constraints, guess.jar, guess.force, guess.state, guess.cone_hessian)
    return cost, cones


@compiled
def _update_factor(
    constraints: Constraints, rows: Rows, inertia: Inertia, guess: Guess, before: Bytes, factor: Array
) -> None:
    """`HessianIncremental` without cones: constraints that became quadratic, or no longer are."""
    for row in range(len(before)):
        was, now = before[row] == QUADRATIC, guess.state[row] == QUADRATIC
        if was == now:
            continue
        root = math.sqrt(constraints.stiffness[row])
        guess.work[:] = 0.0
        for block in range(rows.start[row], rows.start[row + 1]):
            for k in range(4):
                guess.work[rows.column[block] + k] = rows.value[4 * block + k] * root
        if not cholesky_update(factor, rows, guess.work, 0, now):
            factor_hessian(constraints, rows, inertia, guess.state, factor)
            break


@allocating
def _step(
    constraints: Constraints,
    rows: Rows,
    inertia: Inertia,
    motion: Motion,
    guess: Guess,
    options: Options,
    gauss: float,
    direction: Array,
) -> bool:
    """Go as far along a direction (whole blocks,) as the line search says; False where that is nowhere."""
    nv, nefc = len(guess.ma), len(guess.jar)
    length = math.sqrt(dot(direction, 0, direction, 0, 0, nv))
    if length < MINVAL:
        return False
    mv, jv, quad = np.empty(nv), np.empty(nefc), np.empty(3 * nefc)
    multiply_inertia(inertia, direction[:nv], mv)
    multiply(rows, direction, jv)
    along = dot(direction, 0, guess.ma, 0, 0, nv) - dot(motion.smooth_force, 0, direction, 0, 0, nv)
    prepare(constraints, guess.jar, jv, quad)
    line = Line(constraints, guess.jar, jv, quad, (gauss, along, 0.5 * dot(direction, 0, mv, 0, 0, nv)))
    gradient_tolerance = options.tolerance * options.line_search_tolerance * length / options.scale
    alpha = search(line, gradient_tolerance, options.line_search_iterations)
    if alpha == 0.0:
        return False
    for i in range(nv):
        motion.acceleration[i] += direction[i] * alpha
        guess.ma[i] += mv[i] * alpha
    for row in range(nefc):
        guess.jar[row] += jv[row] * alpha
    return True


@compiled
def begin(problem: int, contacts: int, num_contacts: int) -> int:
    """What the solutions of one substep share, of a packed `Problem`; see `solver_memory.begin`."""
    loaded = _load(problem)
    return begin_constraints(loaded.addresses, loaded.settings, contacts, num_contacts)


@allocating
def solve(problem: int, new_forces: int, _: int) -> int:
    """`mj_fwdConstraint`.

    Args:
        problem: a packed `Problem`.
        new_forces: whether forces, and with them the accelerations without constraints, are others than in the last call.
    """
    loaded = _load(problem)
    addresses, options, inertia = loaded.addresses, loaded.options, loaded.inertia
    nv, nefc = len(inertia.address), addresses[NEFC]
    rows, constraints, motion = load_rows(addresses, nv), load_constraints(addresses), load_motion(addresses, nv)
    size = nv * padded(nv)
    kept_factor, kept_state = floats(addresses, FACTOR, size), bytes_(addresses, STATE, nefc)
    state, before = np.empty(nefc, dtype=np.uint8), np.empty(nefc, dtype=np.uint8)
    guess = Guess(np.empty(nefc), np.empty(nv), np.empty(nefc), state, np.empty(MAX_DIM * nefc), np.empty(padded(nv)))
    smooth_cost = floats(addresses, SMOOTH_COST, 1)
    constraint_cost, cones = _first_guess(constraints, rows, inertia, motion, guess, smooth_cost, new_forces != 0)
    same = addresses[KNOWN] == 1
    for row in range(nefc):
        same = same and (kept_state[row] == QUADRATIC) == (state[row] == QUADRATIC)
    if not same:
        factor_hessian(constraints, rows, inertia, state, kept_factor)
        addresses[KNOWN] = 1
        copy(state, kept_state)
    factor, with_cones = kept_factor, np.empty(size)
    gradient, direction = np.empty(nv), np.zeros(padded(nv))
    old_cost = 0.0
    for iteration in range(options.iterations + 1):
        multiply_transposed(rows, guess.force, motion.constraint_force, guess.work)
        gauss = gauss_cost(guess.ma, motion.smooth_force, motion.acceleration, motion.smooth, 0.0)
        cost = constraint_cost + gauss
        for i in range(nv):
            gradient[i] = guess.ma[i] - motion.smooth_force[i] - motion.constraint_force[i]
        if iteration:
            improvement = options.scale * (old_cost - cost)
            if improvement < options.tolerance or iteration == options.iterations:
                break  # MuJoCo would factor once more, in vain
            if options.scale * math.sqrt(dot(gradient, 0, gradient, 0, 0, nv)) < options.tolerance:
                break
            if iteration == 1:
                factor = kept_factor.copy()
            _update_factor(constraints, rows, inertia, guess, before, factor)
        if cones:
            add_cones(constraints, rows, state, guess.cone_hessian, factor, with_cones)
            back_substitute(with_cones, rows, gradient, direction)
        else:
            back_substitute(factor, rows, gradient, direction)
        for i in range(nv):
            direction[i] *= -1.0
        if not _step(constraints, rows, inertia, motion, guess, options, gauss, direction):
            break
        copy(state, before)
        old_cost = cost
        constraint_cost, cones = update_constraints(constraints, guess.jar, guess.force, state, guess.cone_hessian)
    copy(motion.acceleration, motion.warmstart)
    return 0


class ConstraintSolver:
    """Solves the constraints of one model, as `mj_fwdConstraint` does.

    The first solutions are computed both ways; only where every bit agrees do the compiled functions go on alone.

    Args:
        model: mujoco's.
        data: mujoco's.

    Attributes:
        address: of the packed `Problem`, for `solve` and `begin`.
        capacity: for how many rows there is room.
    """

    def __init__(self, model: Any, data: Any) -> None:
        self._model = model
        self._data = data
        self._alone = supported(model)
        self._trials_left = TRIALS
        option, nv = model.opt, model.nv
        options = Options(
            scale=1 / (model.stat.meaninertia * max(1, nv)),
            tolerance=option.tolerance,
            line_search_tolerance=option.ls_tolerance,
            iterations=option.iterations,
            line_search_iterations=option.ls_iterations,
        )
        self.addresses = np.zeros(memory.NUM_FIELDS, dtype=np.int64)
        self._problem = Problem(
            addresses=self.addresses,
            options=options,
            settings=Settings(impratio=option.impratio, timestep=option.timestep),
            inertia=Inertia(data.qM, model.dof_Madr, model.dof_parentid, model.dof_simplenum),
        )
        self._packed = pack(self._problem)
        self.address = self._packed.ctypes.data
        self._kept: dict[int, NDArray[Any]] = {}
        self._results = (data.qacc, data.qacc_warmstart, data.qfrc_constraint)
        self._keep({
            memory.SMOOTH: data.qacc_smooth, memory.SMOOTH_FORCE: data.qfrc_smooth, memory.ACCELERATION: data.qacc,
            memory.WARMSTART: data.qacc_warmstart, memory.CONSTRAINT_FORCE: data.qfrc_constraint,
            memory.FACTOR: np.zeros(nv * padded(nv)), memory.ENVELOPE: np.zeros(nv, np.int32),
            memory.LAST: np.zeros(nv, np.int32), memory.SMOOTH_COST: np.zeros(1),
            memory.PARENT: model.dof_parentid, memory.SIMPLE: model.dof_simplenum,
            memory.QPOS: data.qpos, memory.QVEL: data.qvel, memory.VELOCITY: np.zeros(padded(nv)),
            memory.CDOF: data.cdof, memory.COM: data.subtree_com,
        })  # fmt: skip
        self.capacity = 0
        if self._alone:
            self._keep(constants(model))
            for field, number in {
                memory.NV: nv, memory.NQ: model.nq, memory.NGEOM: model.ngeom, memory.NBODY: model.nbody,
                memory.NF: len(self._kept[memory.FRICTION_DOFS]), memory.NUM_LIMITS: len(self._kept[memory.LIMIT_ROWS]),
            }.items():  # fmt: skip
                self.addresses[field] = number

    def _keep(self, arrays: dict[int, NDArray[Any]]) -> None:
        self._kept |= arrays
        for field, array in arrays.items():
            self.addresses[field] = array.ctypes.data

    @property
    def decided(self) -> bool:
        """Whether `proven` will not change any more."""
        return not self._alone or not self._trials_left

    @property
    def proven(self) -> bool:
        """Whether the compiled functions go on alone."""
        return self._alone and not self._trials_left

    def make_room(self, nefc: int) -> None:
        """Let there be room for as many rows of constraints."""
        if nefc > self.capacity:
            rows = self.capacity = 2 * nefc
            elements = rows * padded(self._model.nv)
            self._keep({
                memory.START: np.zeros(rows + 1, np.int32), memory.COLUMN: np.zeros(elements, np.int32),
                memory.VALUE: np.zeros(elements), HEIGHTS: np.zeros(rows, np.uint8), CONES: np.zeros(rows),
                STATE: np.zeros(rows, np.uint8), memory.STIFFNESS: np.zeros(rows), memory.REGULARIZER: np.zeros(rows),
                memory.AREF: np.zeros(rows), memory.FRICTION_LOSS: np.zeros(rows),
            })  # fmt: skip
            self.addresses[memory.CAPACITY] = rows

    def begin(self) -> None:
        """Contacts have been found anew, and MuJoCo has made the constraints too."""
        data = self._data
        if not data.nefc or not self._alone:
            return
        self.make_room(data.nefc)
        contacts = data.contact.friction.ctypes.data - 8 * FRICTION
        self._alone = begin(self.address, contacts, data.ncon) == data.nefc

    def solve(self, *, new_forces: bool) -> None:
        """Find the accelerations `qacc`, and what `mj_Euler` needs besides.

        Args:
            new_forces: whether forces are others than in the last call.
        """
        if not self._alone or not self._data.nefc:
            mujoco.mj_fwdConstraint(self._model, self._data)
        elif self._trials_left:
            self._solve_both_ways(new_forces)
        else:
            self._solve(new_forces)

    def _solve(self, new_forces: bool) -> None:
        solve(self.address, int(new_forces), 0)

    def _solve_both_ways(self, new_forces: bool) -> None:
        self._trials_left -= 1
        before = self._data.qacc_warmstart.copy()
        self._solve(new_forces)
        mine = [result.tobytes() for result in self._results]
        self._data.qacc_warmstart[:] = before
        mujoco.mj_fwdConstraint(self._model, self._data)
        self._alone = mine == [result.tobytes() for result in self._results]
