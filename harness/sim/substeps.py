"""Physics substeps in one compiled call: what `Stepper` does, without Python between MuJoCo's functions.

A substep takes a third of a millisecond; a dozen calls through Python's bindings, their look-ups and arrays took a quarter of that.
Here MuJoCo's functions are called by their addresses, and its arrays are found in `mjData` itself. An error in MuJoCo (`mju_error`,
such as a stack that overflows) ends the process with its message instead of raising; the engine goes on with another worker.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim import contact_layout
from harness.sim.collision_pairs import make_pairs
from harness.sim.collisions import IN_DOUBT, detect
from harness.sim.compiled import compiled, inlined
from harness.sim.constraint_solver import ConstraintSolver, Options, solve
from harness.sim.contact_layout import CONTACT_BYTES
from harness.sim.native_calls import call, call_add, call_jacobian, collision_functions, functions
from harness.sim.near_pairs import Pairs
from harness.sim.operational_space import Arm, OperationalSpaceControl, arm_torques, command
from harness.sim.packed import Floats, Longs, ints_at, loader, longs_at, pack
from harness.sim.solver_memory import Settings, begin
from harness.sim.sparse_rows import Inertia
from harness.sim.stack import mujoco

Array = NDArray[np.float64]

_NAMES = (
    "mj_kinematics", "mj_comPos", "mj_camlight", "mj_crb", "mj_factorM", "mj_collision", "mj_transmission",
    "mj_makeConstraint", "mj_referenceConstraint", "mj_fwdVelocity", "mj_fwdActuation", "mj_fwdAcceleration",
    "mj_fwdConstraint", "mj_jacSite", "mj_checkPos", "mj_checkVel", "mj_checkAcc", "mj_Euler", "mj_addContact", "mj_collideOBB",
)  # fmt: skip
(
    _KINEMATICS, _COM, _CAMERAS, _INERTIA, _FACTOR_INERTIA, _COLLISION, _TRANSMISSION, _MAKE_CONSTRAINT, _REFERENCE,
    _VELOCITY, _ACTUATION, _ACCELERATION, _CONSTRAINT, _JACOBIAN, _BAD_POS, _BAD_VEL, _BAD_ACC, _EULER, _ADD_CONTACT,
    _COMPARE_BOXES,
) = range(len(_NAMES))  # fmt: skip

_NCON = 40401
"""Where `mjData` of MuJoCo 3.2.3 (mjdata.h) has it on a 64-bit machine, in four bytes."""
_NARENA, _PARENA, _CONTACT = 0, 5, 20305
"""Likewise, in eight bytes."""
_WORDS = 1 + _CONTACT

_NUM_NOTES = 4
_CAPACITY, _MOST, _OWN, _NEW_FORCES = range(_NUM_NOTES)


class Physics(NamedTuple):
    """What substeps work with."""

    functions: Longs
    """Addresses of MuJoCo's, as in `_NAMES`."""
    model: int
    """Address of mujoco's."""
    data: int
    constraints: Longs
    """The constraint solver's table."""
    options: Options
    settings: Settings
    inertia: Inertia
    pairs: Pairs
    arm: Arm
    qpos: Floats
    """(nq,) mujoco's."""
    qpos_before: Floats
    """(nq,) before the last substep."""
    blank: Floats
    """(72,) a contact of zeros."""
    notes: Longs
    """(4,) for how many constraints the solver has room, the most there were, whether those of this substep find room, and whether
    forces are others than in the last solution."""


_load = loader(Physics)


@inlined
def _smooth_acceleration(physics: Physics) -> None:
    """Forces, and what would happen without constraints."""
    call(physics.functions[_ACTUATION], physics.model, physics.data)
    call(physics.functions[_ACCELERATION], physics.model, physics.data)
    physics.notes[_NEW_FORCES] = 1


@compiled
def _solve(physics: Physics) -> None:
    if physics.notes[_OWN]:
        solve(physics.constraints, physics.options, physics.inertia, physics.notes[_NEW_FORCES] == 1)
    else:
        call(physics.functions[_CONSTRAINT], physics.model, physics.data)
    physics.notes[_NEW_FORCES] = 0


@inlined
def find_contacts(physics: Physics) -> None:
    """`mj_collision`."""
    model, data = physics.model, physics.data
    if not len(physics.pairs.geoms):
        call(physics.functions[_COLLISION], model, data)
        return
    counts, words = ints_at(data, 2 * _WORDS), longs_at(data, _WORDS)
    counts[_NCON] = 0
    call_add(physics.functions[_ADD_CONTACT], model, data, physics.blank.ctypes.data)  # forgets the last substep's constraints
    room = words[_NARENA] // (2 * CONTACT_BYTES)
    found = detect(physics.pairs, model, data, physics.functions[_COMPARE_BOXES], words[_CONTACT], room)
    if found == IN_DOUBT:
        call(physics.functions[_COLLISION], model, data)
    else:
        counts[_NCON], words[_PARENA] = found, found * CONTACT_BYTES


@compiled
def _forward(physics: Physics) -> None:
    """Stock's forward pass, and what of the controller's second one is not the same."""
    model, data, notes = physics.model, physics.data, physics.notes
    for stage in (_KINEMATICS, _COM, _CAMERAS, _INERTIA, _FACTOR_INERTIA):
        call(physics.functions[stage], model, data)
    find_contacts(physics)
    call(physics.functions[_TRANSMISSION], model, data)
    call(physics.functions[_VELOCITY], model, data)
    _smooth_acceleration(physics)
    nefc = begin(physics.constraints, physics.settings, longs_at(data, _WORDS)[_CONTACT], ints_at(data, 2 * _WORDS)[_NCON])
    notes[_MOST] = max(notes[_MOST], nefc)
    notes[_OWN] = 0 < nefc <= notes[_CAPACITY]
    if not notes[_OWN]:
        call(physics.functions[_MAKE_CONSTRAINT], model, data)
        call(physics.functions[_REFERENCE], model, data)
    _solve(physics)
    _solve(physics)


@compiled
def _finish(physics: Physics, first: bool) -> None:
    """Commands, and stock's `mj_step`."""
    model, data, arm = physics.model, physics.data, physics.arm
    jacobian = arm.jacobian.ctypes.data
    half = 8 * (arm.jacobian.size // 2)
    call_jacobian(physics.functions[_JACOBIAN], model, data, jacobian, jacobian + half, arm.site)
    arm_torques(arm)
    command(arm, arm.torques)
    if first:  # from then on a bad position or velocity can only come from a bad acceleration
        call(physics.functions[_BAD_POS], model, data)
        call(physics.functions[_BAD_VEL], model, data)
    _smooth_acceleration(physics)
    _solve(physics)
    call(physics.functions[_BAD_ACC], model, data)
    for i in range(len(physics.qpos)):
        physics.qpos_before[i] = physics.qpos[i]
    call(physics.functions[_EULER], model, data)


@compiled
def _run(packed: int, begun: bool, substeps: int) -> None:
    """Some whole substeps, of which the first may have begun; or, for none, the beginning of one."""
    physics = _load(packed)
    if substeps == 0:
        _forward(physics)
    for substep in range(substeps):
        resumed = begun and substep == 0
        if not resumed:
            _forward(physics)
        _finish(physics, resumed)


class Substeps:
    """The substeps of one model.

    Args:
        model: mujoco's.
        data: mujoco's.
        control: of the robot.
        solver: of the constraints.
    """

    def __init__(self, model: Any, data: Any, control: OperationalSpaceControl, solver: ConstraintSolver) -> None:
        self._data = data
        self._control = control
        self._solver = solver
        self._layout_is_known: bool | None = None
        called, colliding = functions(_NAMES), collision_functions()
        if called is None or colliding is None:
            self._layout_is_known = False
            return
        self._notes = np.zeros(_NUM_NOTES, dtype=np.int64)
        self._qpos_before = np.empty(model.nq)
        self._physics = Physics(
            called, model._address, data._address, solver.addresses, solver.options, solver.settings, solver.inertia,
            make_pairs(model, data, colliding), control.arm, data.qpos, self._qpos_before, np.zeros(contact_layout.NUM_WORDS),
            self._notes,
        )  # fmt: skip
        self._packed = pack(self._physics)
        self._address = self._packed.ctypes.data

    def decided(self) -> bool:
        """Whether the trials are over."""
        return self._solver.decided and self._control.decided

    def usable(self) -> bool:
        """Whether what is compiled has shown to be right on this machine, and everything is where it is looked for."""
        if not (self._solver.proven and self._control.proven):
            return False
        if self._layout_is_known is None:
            if not self._data.ncon:
                return False  # without contacts it cannot be told yet
            self._layout_is_known = _has_known_layout(self._data)
        return self._layout_is_known

    def begin(self) -> None:
        """The first half of a control step's first substep; then the goal may be set."""
        self._run(begun=False, substeps=0)

    def finish_first(self, substeps: int) -> None:
        """The rest of a substep that has begun, and further ones until there are `substeps`."""
        self._run(begun=True, substeps=substeps)

    def more(self, substeps: int) -> None:
        """Whole substeps."""
        self._run(begun=False, substeps=substeps)

    @property
    def qpos_before(self) -> Array:
        """(nq,) the positions before the last substep; a copy."""
        return self._qpos_before.copy()

    def _run(self, *, begun: bool, substeps: int) -> None:
        self._notes[_CAPACITY], self._notes[_MOST] = self._solver.capacity, 0
        _run(self._address, begun, substeps)
        if self._notes[_MOST] > self._notes[_CAPACITY]:
            self._solver.make_room(int(self._notes[_MOST]))


def _has_known_layout(data: Any) -> bool:
    """Whether the fields of `mjData` have, at their places, what the bindings say they have."""
    words = np.ctypeslib.as_array((ctypes.c_int64 * _WORDS).from_address(data._address))
    contacts = data.contact.friction.ctypes.data - 8 * contact_layout.FRICTION
    return bool(
        words.view(np.int32)[_NCON] == data.ncon
        and (words[_CONTACT], words[_NARENA], words[_PARENA]) == (contacts, data.narena, data.parena)
    )
