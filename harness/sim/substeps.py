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
from harness.sim.collisions import IN_DOUBT, Search, detect
from harness.sim.compiled import compiled, inlined
from harness.sim.constraint_solver import ConstraintSolver, begin, solve
from harness.sim.contact_layout import CONTACT_BYTES
from harness.sim.native_calls import (
    call,
    call_add,
    call_jacobian,
    call_part,
    collision_functions,
    functions,
    part_address,
)
from harness.sim.operational_space import Arm, OperationalSpaceControl, command, torques_part
from harness.sim.packed import Floats, Longs, ints_at, loader, longs_at, pack

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

_CONTACT_TRIALS = 25
"""Substeps whose contacts are looked for both ways."""
_FOUND = slice(0, 8 * contact_layout.MU), slice(4 * contact_layout.DIM, 4 * contact_layout.EXCLUDE)
"""The bytes of a contact that collision detection alone writes."""

_NUM_NOTES = 5
_CAPACITY, _MOST, _OWN, _NEW_FORCES, _OWN_CONTACTS = range(_NUM_NOTES)
PARTS = detect, begin, solve, torques_part
_DETECT, _BEGIN, _SOLVE, _TORQUES = range(len(PARTS))


class Physics(NamedTuple):
    """What substeps work with."""

    functions: Longs
    """Addresses of MuJoCo's, as in `_NAMES`."""
    parts: Longs
    """(4,) addresses of compiled parts."""
    model: int
    """Address of mujoco's."""
    data: int
    problem: int
    """Address of the constraint solver's packed one."""
    search: int
    """Address of the contacts' packed one."""
    packed_arm: int
    arm: Arm
    qpos: Floats
    """(nq,) mujoco's."""
    qpos_before: Floats
    """(nq,) before the last substep."""
    blank: Floats
    """(72,) a contact of zeros."""
    notes: Longs
    """(5,) for how many constraints the solver has room, the most there were, whether those of this substep find room, whether
    forces are others than in the last solution, and whether contacts are looked for here."""


_load = loader(Physics)


@inlined
def _smooth_acceleration(physics: Physics) -> None:
    """Forces, and what would happen without constraints."""
    call(physics.functions[_ACTUATION], physics.model, physics.data)
    call(physics.functions[_ACCELERATION], physics.model, physics.data)
    physics.notes[_NEW_FORCES] = 1


@inlined
def _solve(physics: Physics) -> None:
    if physics.notes[_OWN]:
        call_part(physics.parts[_SOLVE], physics.problem, physics.notes[_NEW_FORCES], 0)
    else:
        call(physics.functions[_CONSTRAINT], physics.model, physics.data)
    physics.notes[_NEW_FORCES] = 0


@inlined
def _find_contacts(physics: Physics) -> None:
    """`mj_collision`."""
    model, data = physics.model, physics.data
    found = IN_DOUBT
    if physics.notes[_OWN_CONTACTS]:
        counts, words = ints_at(data, 2 * _WORDS), longs_at(data, _WORDS)
        counts[_NCON] = 0
        call_add(
            physics.functions[_ADD_CONTACT], model, data, physics.blank.ctypes.data
        )  # forgets the last substep's constraints
        found = call_part(
            physics.parts[_DETECT], physics.search, words[_CONTACT], words[_NARENA] // (2 * CONTACT_BYTES)
        )
        if found != IN_DOUBT:
            counts[_NCON], words[_PARENA] = found, found * CONTACT_BYTES
    if found == IN_DOUBT:
        call(physics.functions[_COLLISION], model, data)


@compiled
def _forward(physics: Physics) -> None:
    """Stock's forward pass, and what of the controller's second one is not the same."""
    model, data, notes = physics.model, physics.data, physics.notes
    for stage in (_KINEMATICS, _COM, _CAMERAS, _INERTIA, _FACTOR_INERTIA):
        call(physics.functions[stage], model, data)
    _find_contacts(physics)
    call(physics.functions[_TRANSMISSION], model, data)
    call(physics.functions[_VELOCITY], model, data)
    _smooth_acceleration(physics)
    counts, words = ints_at(data, 2 * _WORDS), longs_at(data, _WORDS)
    nefc = call_part(physics.parts[_BEGIN], physics.problem, words[_CONTACT], np.int64(counts[_NCON]))
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
    call_part(physics.parts[_TORQUES], physics.packed_arm, 0, 0)
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
        data: mujoco's, with the kinematics of some positions.
        control: of the robot.
        solver: of the constraints.
    """

    def __init__(self, model: Any, data: Any, control: OperationalSpaceControl, solver: ConstraintSolver) -> None:
        self._data = data
        self._control = control
        self._solver = solver
        self._layout_is_known: bool | None = None
        called, colliding = functions(_NAMES), collision_functions()
        self._contact_trials_left = 0
        if called is None or colliding is None:
            self._layout_is_known = False
            return
        pairs = make_pairs(model, data, colliding)
        self._search = Search(model._address, data._address, int(called[_COMPARE_BOXES]), pairs)
        self._packed_search = pack(self._search)
        self._notes = np.zeros(_NUM_NOTES, dtype=np.int64)
        if len(pairs.geoms):
            self._contact_trials_left = _CONTACT_TRIALS
        self._parts = np.zeros(len(PARTS), dtype=np.int64)
        self._qpos_before = np.empty(model.nq)
        self._physics = Physics(
            called, self._parts, model._address, data._address, solver.address, self._packed_search.ctypes.data, control.address,
            control.arm, data.qpos, self._qpos_before, np.zeros(contact_layout.NUM_WORDS), self._notes,
        )  # fmt: skip
        self._packed = pack(self._physics)
        self._address = self._packed.ctypes.data

    def decided(self) -> bool:
        """Whether the trials are over."""
        return self._solver.decided and self._control.decided and not self._contact_trials_left

    def usable(self) -> bool:
        """Whether what is compiled has shown to be right on this machine, and everything is where it is looked for."""
        if not (self._solver.proven and self._control.proven) or self._contact_trials_left:
            return False
        if self._layout_is_known is None:
            if not self._data.ncon:
                return False  # without contacts it cannot be told yet
            self._layout_is_known = _has_known_layout(self._data)
        return self._layout_is_known

    def try_contacts(self) -> None:
        """MuJoCo has found the contacts of a substep: those found here must be the same, as long as that is on trial."""
        if not self._contact_trials_left:
            return
        self._contact_trials_left -= 1
        num_contacts = self._data.ncon
        room = num_contacts + contact_layout.MAX_PER_PAIR
        mine = np.zeros((room, CONTACT_BYTES), dtype=np.uint8)
        found = detect(self._packed_search.ctypes.data, mine.ctypes.data, room)
        agree = found in {num_contacts, IN_DOUBT}
        if agree and found > 0:
            theirs = np.ctypeslib.as_array(
                (ctypes.c_uint8 * (found * CONTACT_BYTES)).from_address(_contacts_address(self._data))
            ).reshape(found, CONTACT_BYTES)
            agree = all(np.array_equal(mine[:found, part], theirs[:, part]) for part in _FOUND)
        if not agree:
            self._contact_trials_left = 0
        self._notes[_OWN_CONTACTS] = agree

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
        if not self._parts.all():
            self._parts[:] = [part_address(part) for part in PARTS]
        self._notes[_CAPACITY], self._notes[_MOST] = self._solver.capacity, 0
        _run(self._address, begun, substeps)
        if self._notes[_MOST] > self._notes[_CAPACITY]:
            self._solver.make_room(int(self._notes[_MOST]))


def _contacts_address(data: Any) -> int:
    return int(data.contact.friction.ctypes.data) - 8 * contact_layout.FRICTION


def _has_known_layout(data: Any) -> bool:
    """Whether the fields of `mjData` have, at their places, what the bindings say they have."""
    words = np.ctypeslib.as_array((ctypes.c_int64 * _WORDS).from_address(data._address))
    return bool(
        words.view(np.int32)[_NCON] == data.ncon
        and (words[_CONTACT], words[_NARENA], words[_PARENA]) == (_contacts_address(data), data.narena, data.parena)
    )
