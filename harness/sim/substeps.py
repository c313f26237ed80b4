"""Physics substeps in one compiled call: what `Stepper` does, without Python between MuJoCo's functions.

A substep takes a third of a millisecond; a dozen calls through Python's bindings, their look-ups and arrays took a quarter of that.
Here MuJoCo's functions are called by their addresses, and its arrays are found in `mjData` itself. An error in MuJoCo (`mju_error`,
such as a stack that overflows) ends the process with its message instead of raising; the engine goes on with another worker.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray  # type: ignore[attr-defined]
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from harness.sim.compiled import compiled
from harness.sim.constraint_rows import FRICTION
from harness.sim.constraint_solver import ConstraintSolver, Options, solve
from harness.sim.operational_space import Arm, OperationalSpaceControl, arm_torques, command
from harness.sim.solver_memory import NUM_FIELDS, Settings, begin, floats, ints, longs, pointer
from harness.sim.sparse_rows import Inertia
from harness.sim.stack import mujoco

Array = NDArray[np.float64]
Addresses = NDArray[np.int64]

_NAMES = (
    "mj_kinematics", "mj_comPos", "mj_camlight", "mj_crb", "mj_factorM", "mj_collision", "mj_transmission",
    "mj_makeConstraint", "mj_referenceConstraint", "mj_fwdVelocity", "mj_fwdActuation", "mj_fwdAcceleration",
    "mj_fwdConstraint", "mj_jacSite", "mj_checkPos", "mj_checkVel", "mj_checkAcc", "mj_Euler",
)  # fmt: skip
(
    _KINEMATICS, _COM, _CAMERAS, _INERTIA, _FACTOR_INERTIA, _COLLISION, _TRANSMISSION, _MAKE_CONSTRAINT, _REFERENCE,
    _VELOCITY, _ACTUATION, _ACCELERATION, _CONSTRAINT, _JACOBIAN, _BAD_POS, _BAD_VEL, _BAD_ACC, _EULER,
) = range(len(_NAMES))  # fmt: skip

_NCON = 40401
"""Where `mjData` of MuJoCo 3.2.3 (mjdata.h) has it on a 64-bit machine, in four bytes."""
_CONTACT = 20305
"""Likewise, in eight bytes."""
_WORDS = 1 + _CONTACT

_NUM_FIELDS = 37
(
    _MODEL, _DATA, _NV, _NQ, _NM, _JOINTS, _FINGERS, _SITE, _FIRST_DOF,
    _FUNCTIONS, _SOLVER, _OPTIONS, _QM, _MADR, _PARENT, _SIMPLE, _QPOS, _QPOS_BEFORE, _NOTES,
    _ARM_JACOBIAN, _INERTIA_INDEX, _GOAL_POSITION, _EEF_POSITION, _GOAL_ROTATION, _EEF_ROTATION, _GAINS, _REST_POSTURE,
    _JOINT_POSITION, _QVEL, _BIAS_TORQUE, _TORQUES, _LIMITS, _ARM_COMMAND, _FINGER_RANGE, _FINGER_OPENING, _FINGER_STEP,
    _FINGER_COMMAND,
) = range(_NUM_FIELDS)  # fmt: skip
"""A table of numbers and of arrays' addresses: handing over the arrays themselves takes a hundred times as long."""
_NUM_NOTES = 4
_CAPACITY, _MOST, _OWN, _NEW_FORCES = range(_NUM_NOTES)


class Physics(NamedTuple):
    """What substeps work with, but for the robot's commands."""

    functions: Addresses
    """Of MuJoCo's, as in `_NAMES`."""
    model: int
    """Address of mujoco's."""
    data: int
    addresses: Addresses
    """The constraint solver's table."""
    options: Options
    inertia: Inertia
    settings: Settings
    qpos: Array
    """(nq,) mujoco's."""
    qpos_before: Array
    """(nq,) before the last substep."""
    notes: Addresses
    """(4,) for how many constraints the solver has room, the most there were, whether those of this substep find room, and whether
    forces are others than in the last solution."""


def _make_call(context: Any, function: Any, model: Any, data: Any) -> Any:
    """Call a function of MuJoCo's that takes a model and its data."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, byte])
        builder.call(
            builder.inttoptr(arguments[0], kind.as_pointer()), [builder.inttoptr(a, byte) for a in arguments[1:]]
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


def _make_call_jacobian(  # noqa: PLR0917 (numba calls it by position)
    context: Any, function: Any, model: Any, data: Any, position: Any, rotation: Any, site: Any
) -> Any:
    """`mj_jacSite`; arrays are handed over by address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte] * 4 + [number])
        pointers = [builder.inttoptr(a, byte) for a in arguments[1:5]]
        builder.call(
            builder.inttoptr(arguments[0], kind.as_pointer()), [*pointers, builder.trunc(arguments[5], number)]
        )
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


_call: Any = intrinsic(_make_call)
_call_jacobian: Any = intrinsic(_make_call_jacobian)


@compiled
def _smooth_acceleration(physics: Physics) -> None:
    """Forces, and what would happen without constraints."""
    _call(physics.functions[_ACTUATION], physics.model, physics.data)
    _call(physics.functions[_ACCELERATION], physics.model, physics.data)
    physics.notes[_NEW_FORCES] = 1


@compiled
def _solve(physics: Physics) -> None:
    if physics.notes[_OWN]:
        solve(physics.addresses, physics.options, physics.inertia, physics.notes[_NEW_FORCES] == 1)
    else:
        _call(physics.functions[_CONSTRAINT], physics.model, physics.data)
    physics.notes[_NEW_FORCES] = 0


@compiled
def _forward(physics: Physics) -> None:
    """Stock's forward pass, and what of the controller's second one is not the same."""
    model, data, functions, notes = physics.model, physics.data, physics.functions, physics.notes
    for stage in (_KINEMATICS, _COM, _CAMERAS, _INERTIA, _FACTOR_INERTIA, _COLLISION, _TRANSMISSION, _VELOCITY):
        _call(functions[stage], model, data)
    _smooth_acceleration(physics)
    counts, words = carray(pointer(data), 2 * _WORDS, np.int32), carray(pointer(data), _WORDS, np.int64)
    nefc = begin(physics.addresses, physics.settings, words[_CONTACT], counts[_NCON])
    notes[_MOST] = max(notes[_MOST], nefc)
    notes[_OWN] = 0 < nefc <= notes[_CAPACITY]
    if not notes[_OWN]:
        _call(functions[_MAKE_CONSTRAINT], model, data)
        _call(functions[_REFERENCE], model, data)
    _solve(physics)
    _solve(physics)


@compiled
def _finish(physics: Physics, arm: Arm, first: bool) -> None:
    """Commands, and stock's `mj_step`."""
    model, data, functions = physics.model, physics.data, physics.functions
    jacobian = arm.jacobian.ctypes.data
    half = 8 * (arm.jacobian.size // 2)
    _call_jacobian(functions[_JACOBIAN], model, data, jacobian, jacobian + half, arm.site)
    arm_torques(arm)
    command(arm, arm.torques)
    if first:  # from then on a bad position or velocity can only come from a bad acceleration
        _call(functions[_BAD_POS], model, data)
        _call(functions[_BAD_VEL], model, data)
    _smooth_acceleration(physics)
    _solve(physics)
    _call(functions[_BAD_ACC], model, data)
    physics.qpos_before[:] = physics.qpos
    _call(functions[_EULER], model, data)


@compiled
def _load_physics(table: Addresses) -> Physics:
    nv, nq = table[_NV], table[_NQ]
    options = floats(table, _OPTIONS, 7)
    return Physics(
        longs(table, _FUNCTIONS, len(_NAMES)),
        table[_MODEL],
        table[_DATA],
        longs(table, _SOLVER, NUM_FIELDS),
        Options(options[0], options[1], options[2], int(options[3]), int(options[4])),
        Inertia(
            floats(table, _QM, table[_NM]), ints(table, _MADR, nv), ints(table, _PARENT, nv), ints(table, _SIMPLE, nv)
        ),
        Settings(options[5], options[6]),
        floats(table, _QPOS, nq),
        floats(table, _QPOS_BEFORE, nq),
        longs(table, _NOTES, _NUM_NOTES),
    )


@compiled
def _load_arm(table: Addresses) -> Arm:
    nv, joints, fingers = table[_NV], table[_JOINTS], table[_FINGERS]
    return Arm(
        table[_SITE],
        floats(table, _ARM_JACOBIAN, 6 * nv).reshape(6, nv),
        floats(table, _QM, table[_NM]),
        longs(table, _INERTIA_INDEX, joints * joints).reshape(joints, joints),
        table[_FIRST_DOF],
        floats(table, _GOAL_POSITION, 3),
        floats(table, _EEF_POSITION, 3),
        floats(table, _GOAL_ROTATION, 9).reshape(3, 3),
        floats(table, _EEF_ROTATION, 9).reshape(3, 3),
        floats(table, _GAINS, 12).reshape(2, 6),
        floats(table, _REST_POSTURE, joints),
        floats(table, _JOINT_POSITION, joints),
        floats(table, _QVEL, nv),
        floats(table, _BIAS_TORQUE, nv),
        floats(table, _TORQUES, joints),
        floats(table, _LIMITS, 2 * joints).reshape(2, joints),
        floats(table, _ARM_COMMAND, joints),
        floats(table, _FINGER_RANGE, 2 * fingers).reshape(2, fingers),
        floats(table, _FINGER_OPENING, fingers),
        floats(table, _FINGER_STEP, fingers),
        floats(table, _FINGER_COMMAND, fingers),
    )


@compiled
def _run(table: Addresses, begun: bool, substeps: int) -> None:
    """Some whole substeps, of which the first may have begun; or, for none, the beginning of one."""
    physics, arm = _load_physics(table), _load_arm(table)
    if substeps == 0:
        _forward(physics)
    for substep in range(substeps):
        resumed = begun and substep == 0
        if not resumed:
            _forward(physics)
        _finish(physics, arm, resumed)


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
        self._functions = _functions()
        self._layout_is_known: bool | None = None
        if self._functions is None:
            self._layout_is_known = False
            return
        self._notes = np.zeros(_NUM_NOTES, dtype=np.int64)
        self._qpos_before = np.empty(model.nq)
        arm, inertia = control.arm, solver.inertia
        numbers = {
            _MODEL: model._address, _DATA: data._address, _NV: model.nv, _NQ: model.nq, _NM: model.nM,
            _JOINTS: len(arm.torques), _FINGERS: len(arm.finger_step), _SITE: arm.site, _FIRST_DOF: arm.first_dof,
        }  # fmt: skip
        self._arrays = {
            _FUNCTIONS: self._functions, _SOLVER: solver.addresses, _OPTIONS: np.array([*solver.options, *solver.settings]),
            _QM: inertia.value, _MADR: inertia.address, _PARENT: inertia.parent, _SIMPLE: inertia.simple,
            _QPOS: data.qpos, _QPOS_BEFORE: self._qpos_before, _NOTES: self._notes,
            _ARM_JACOBIAN: arm.jacobian, _INERTIA_INDEX: arm.inertia_index, _GOAL_POSITION: arm.goal_position,
            _EEF_POSITION: arm.eef_position, _GOAL_ROTATION: arm.goal_rotation, _EEF_ROTATION: arm.eef_rotation,
            _GAINS: arm.gains, _REST_POSTURE: arm.rest_posture, _JOINT_POSITION: arm.joint_position, _QVEL: arm.qvel,
            _BIAS_TORQUE: arm.bias_torque, _TORQUES: arm.torques, _LIMITS: arm.limits, _ARM_COMMAND: arm.arm_command,
            _FINGER_RANGE: arm.finger_range, _FINGER_OPENING: arm.finger_opening, _FINGER_STEP: arm.finger_step,
            _FINGER_COMMAND: arm.finger_command,
        }  # fmt: skip
        self._table = np.zeros(_NUM_FIELDS, dtype=np.int64)
        for field, number in numbers.items():
            self._table[field] = number
        for field, array in self._arrays.items():
            assert array.flags.c_contiguous, field
            self._table[field] = array.ctypes.data

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
        _run(self._table, begun, substeps)
        if self._notes[_MOST] > self._notes[_CAPACITY]:
            self._solver.make_room(int(self._notes[_MOST]))


def _functions() -> Addresses | None:
    """Addresses of the functions in the library that `mujoco` has loaded; None where that is not found."""
    path = Path(mujoco.__file__).parent / f"libmujoco.so.{mujoco.__version__}"
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
        found = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _NAMES]
    except (OSError, AttributeError):
        return None
    return np.array(found, dtype=np.int64)


def _has_known_layout(data: Any) -> bool:
    """Whether the fields of `mjData` have, at their places, what the bindings say they have."""
    words = np.ctypeslib.as_array((ctypes.c_int64 * _WORDS).from_address(data._address))
    return bool(
        words.view(np.int32)[_NCON] == data.ncon and words[_CONTACT] == data.contact.friction.ctypes.data - 8 * FRICTION
    )
