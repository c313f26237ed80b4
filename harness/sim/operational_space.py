"""robosuite's operational-space controller and gripper, without their look-ups: the same arithmetic, bit for bit.

Per substep stock spends five times as long on name look-ups, copies and four Jacobians as on the control law (Khatib 1987,
as in `robosuite/controllers/osc.py`). Here indices are resolved once and the Jacobian is computed once. What decides about
bits stays as it is there: the operations and their order, the memory layout of every matrix that reaches BLAS or LAPACK,
and which library computes it. robosuite's compiled functions call scipy's BLAS, the rest of its control law numpy's; the two need not
round alike. So the law exists twice: compiled as a whole, and with robosuite's functions and numpy's products. The first commands of a
model are computed both ways, and only where every bit agrees the compiled one goes on alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import allocating, compiled
from harness.sim.packed import FloatRows, Floats, LongRows, loader, pack
from harness.sim.stack import control_utils, mujoco, transform_utils

Array = NDArray[np.float64]
opspace_matrices = control_utils.opspace_matrices
nullspace_torques = control_utils.nullspace_torques
orientation_error = control_utils.orientation_error
_ARM_ACTION_DIM = 6
TRIALS = 50
"""Commands computed both ways, two control steps; libraries that round differently differ in nearly every one."""


class Arm(NamedTuple):
    """What a robot's commands are computed from and written to. Arrays that are MuJoCo's are read and written in place."""

    site: int
    """The grip site's number."""
    jacobian: FloatRows
    """(6, nv) of the grip site, up to date."""
    inertia: Floats
    """MuJoCo's sparse `qM` of everything."""
    inertia_index: LongRows
    """(joints, joints) where in it the arm's own lies."""
    first_dof: int
    """Of the arm's."""
    goal_position: Floats
    """(3,) [m], world."""
    eef_position: Floats
    goal_rotation: FloatRows
    """(3, 3)"""
    eef_rotation: FloatRows
    gains: FloatRows
    """(2, 6) stiffness and damping."""
    rest_posture: Floats
    """(joints,) [rad]"""
    joint_position: Floats
    """(joints,) MuJoCo's."""
    qvel: Floats
    """(nv,) MuJoCo's, of everything."""
    bias_torque: Floats
    """(nv,) likewise."""
    torques: Floats
    """(joints,) [Nm] before clipping."""
    limits: FloatRows
    """(2, joints) [Nm] lowest and highest."""
    arm_command: Floats
    """(joints,) of MuJoCo's `ctrl`."""
    finger_range: FloatRows
    """(2, fingers) middle and half width of the actuators' ranges."""
    finger_opening: Floats
    """(fingers,) in [-1, 1]."""
    finger_step: Floats
    """(fingers,) what the opening changes by in a substep."""
    finger_command: Floats
    """(fingers,) of MuJoCo's `ctrl`."""


@allocating
def arm_torques(arm: Arm) -> None:
    """`OperationalSpaceControl.torques_with_numpy`, compiled as a whole."""
    joints = len(arm.torques)
    mass = np.empty((joints, joints)).T  # Fortran order, as below
    j_full, j_position, j_rotation = np.empty((joints, 6)).T, np.empty((joints, 3)).T, np.empty((joints, 3)).T
    for column in range(joints):
        for row in range(joints):
            mass[row, column] = arm.inertia[arm.inertia_index[row, column]]
        j_full[:, column] = arm.jacobian[:, arm.first_dof + column]
        j_position[:, column] = arm.jacobian[:3, arm.first_dof + column]
        j_rotation[:, column] = arm.jacobian[3:, arm.first_dof + column]
    rotation_error = orientation_error(arm.goal_rotation, arm.eef_rotation)
    position_error = arm.goal_position - arm.eef_position
    force = position_error * arm.gains[0, :3] + -np.dot(arm.jacobian[:3], arm.qvel) * arm.gains[1, :3]
    torque = rotation_error * arm.gains[0, 3:] + -np.dot(arm.jacobian[3:], arm.qvel) * arm.gains[1, 3:]
    _, lambda_position, lambda_rotation, nullspace = opspace_matrices(mass, j_full, j_position, j_rotation)
    wrench = np.empty(6)
    wrench[:3] = np.dot(lambda_position, force)
    wrench[3:] = np.dot(lambda_rotation, torque)
    dofs = slice(arm.first_dof, arm.first_dof + joints)
    posture_torque = nullspace_torques(mass, nullspace, arm.rest_posture, arm.joint_position, arm.qvel[dofs])
    arm.torques[:] = np.dot(j_full.T, wrench) + arm.bias_torque[dofs] + posture_torque


_load = loader(Arm)


@compiled
def torques_part(arm: int, _: int, __: int) -> int:
    """`arm_torques` of a packed `Arm`."""
    arm_torques(_load(arm))
    return 0


@compiled
def command(arm: Arm, torques: Array) -> None:
    """Clip torques (joints,) [Nm], move the fingers on by a substep, and set all of the robot's actuators."""
    for joint in range(len(torques)):
        arm.arm_command[joint] = min(max(torques[joint], arm.limits[0, joint]), arm.limits[1, joint])
    for finger in range(len(arm.finger_opening)):
        opening = min(max(arm.finger_opening[finger] + arm.finger_step[finger], -1.0), 1.0)
        arm.finger_opening[finger] = opening
        arm.finger_command[finger] = arm.finger_range[0, finger] + arm.finger_range[1, finger] * opening


class OperationalSpaceControl:
    """Writes the actuators' commands of one robot, in torque [Nm] for the arm.

    Args:
        robot: robosuite's `SingleArm` with the fixed-gain OSC_POSE controller; its references are set up.
        model: mujoco's.
        data: mujoco's.
    """

    def __init__(self, robot: Any, model: Any, data: Any) -> None:
        self._robot = robot
        self._model = model
        self._data = data
        qpos, dofs = _as_slice(robot._ref_joint_pos_indexes), _as_slice(robot._ref_joint_vel_indexes)
        arm_actuators = _as_slice(robot._ref_joint_actuator_indexes)
        finger_actuators = _as_slice(robot._ref_joint_gripper_actuator_indexes)
        low, high = model.actuator_ctrlrange[finger_actuators].T
        joints, fingers = dofs.stop - dofs.start, len(low)
        self.arm = Arm(
            site=int(robot.eef_site_id),
            jacobian=np.zeros((6, model.nv)), inertia=data.qM, inertia_index=_inertia_index(model, dofs),
            first_dof=dofs.start,
            goal_position=np.empty(3), eef_position=data.site_xpos[robot.eef_site_id],
            goal_rotation=np.empty((3, 3)), eef_rotation=data.site_xmat[robot.eef_site_id].reshape(3, 3),
            gains=np.empty((2, 6)), rest_posture=np.empty(joints),
            joint_position=data.qpos[qpos], qvel=data.qvel, bias_torque=data.qfrc_bias,
            torques=np.empty(joints), limits=np.array(robot.torque_limits), arm_command=data.ctrl[arm_actuators],
            finger_range=np.array([0.5 * (high + low), 0.5 * (high - low)]), finger_opening=np.empty(fingers),
            finger_step=np.empty(fingers), finger_command=data.ctrl[finger_actuators],
        )  # fmt: skip
        self._packed = pack(self.arm)
        self.address = self._packed.ctypes.data
        self._joint_dofs = dofs
        self._jacobian_position, self._jacobian_rotation = self.arm.jacobian[:3], self.arm.jacobian[3:]
        # Fortran order: what fancy indexing of a column range makes, and so what stock hands to BLAS.
        self._j_position = np.zeros((3, joints), order="F")
        self._j_rotation = np.zeros((3, joints), order="F")
        self._j_full = np.zeros((6, joints), order="F")
        self._mass = np.zeros((joints, joints), order="F")
        self._trials_left = TRIALS
        self._libraries_agree = True

    @property
    def decided(self) -> bool:
        """Whether `proven` will not change any more."""
        return not self._libraries_agree or not self._trials_left

    @property
    def proven(self) -> bool:
        """Whether the compiled control law goes on alone."""
        return self._libraries_agree and not self._trials_left

    def take_over(self, action: NDArray[np.float64]) -> None:
        """Go on where robosuite's controller, which has just begun with `action`, stands: its gains and goal."""
        controller = self._robot.controller
        assert controller.impedance_mode == "fixed", "variable gains are set with every action"
        assert controller.uncoupling, "the coupled control law is not implemented"
        assert controller.interpolator_pos is None, "interpolation is not implemented"
        assert controller.interpolator_ori is None, "interpolation is not implemented"
        assert controller.use_delta, "absolute goals are not implemented"
        assert controller.use_ori, "position-only control is not implemented"
        assert controller.position_limits is None, "limits of the workspace are not implemented"
        assert controller.orientation_limits is None, "limits of the workspace are not implemented"
        controller.scale_action(action[:_ARM_ACTION_DIM])  # works out the scaling
        self._scaling = tuple(
            np.broadcast_to(np.asarray(values, dtype=np.float64), (_ARM_ACTION_DIM,)).copy()
            for values in (
                controller.input_min, controller.input_max, controller.action_input_transform, controller.action_scale,
                controller.action_output_transform,
            )
        )  # fmt: skip
        self.arm.gains[:] = controller.kp, controller.kd
        self.arm.rest_posture[:] = controller.initial_joint
        self.arm.goal_position[:] = controller.goal_pos
        self.arm.goal_rotation[:] = controller.goal_ori
        self.arm.finger_opening[:] = self._robot.gripper.current_action
        self._set_finger_step(action)

    def set_goal(self, action: NDArray[np.float64]) -> None:
        """`action` (7,) in [-1, 1]: translation, rotation as axis-angle, gripper. The poses must be those of now."""
        lowest, highest, middle, scale, offset = self._scaling
        scaled = (np.minimum(np.maximum(action[:_ARM_ACTION_DIM], lowest), highest) - middle) * scale + offset
        turn = scaled[3:]
        if any(not math.isclose(angle, 0.0) for angle in turn.tolist()):  # without rotation stock keeps the old goal
            rotation = transform_utils.quat2mat(transform_utils.axisangle2quat(turn))
            np.dot(rotation, self.arm.eef_rotation, out=self.arm.goal_rotation)
        np.add(self.arm.eef_position, scaled[:3], out=self.arm.goal_position)
        self._set_finger_step(action)

    def _set_finger_step(self, action: NDArray[np.float64]) -> None:
        opening = action.item(_ARM_ACTION_DIM)
        sign = float((opening > 0.0) - (opening < 0.0))
        self.arm.finger_step[:] = (-self._robot.gripper.speed * sign, self._robot.gripper.speed * sign)

    def command(self) -> None:
        """Compute torques from the present state, and set all of the robot's actuators."""
        command(self.arm, self._arm_torques())

    def _arm_torques(self) -> Array:
        """(joints,) [Nm] before clipping."""
        site = self.arm.site
        mujoco.mj_jacSite(self._model, self._data, self._jacobian_position, self._jacobian_rotation, site)
        if not self._libraries_agree:
            return self.torques_with_numpy()
        torques = self.torques_compiled()
        if self._trials_left:
            self._trials_left -= 1
            with_numpy = self.torques_with_numpy()
            self._libraries_agree = np.array_equal(torques, with_numpy)
            return with_numpy
        return torques

    def torques_compiled(self) -> Array:
        """(joints,) [Nm], overwritten by the next call; the Jacobian and the inertia are up to date."""
        torques_part(self.address, 0, 0)
        return self.arm.torques

    def torques_with_numpy(self) -> Array:
        """As `torques_compiled`, with robosuite's functions and numpy's matrix products, each where stock has it."""
        arm, dofs, (kp, kd) = self.arm, self._joint_dofs, self.arm.gains
        self._mass[:] = arm.inertia[arm.inertia_index]
        self._j_full[:] = arm.jacobian[:, dofs]
        self._j_position[:] = self._jacobian_position[:, dofs]
        self._j_rotation[:] = self._jacobian_rotation[:, dofs]
        rotation_error = orientation_error(arm.goal_rotation, arm.eef_rotation)
        position_error = arm.goal_position - arm.eef_position
        force = position_error * kp[:3] + -self._jacobian_position.dot(arm.qvel) * kd[:3]
        torque = rotation_error * kp[3:] + -self._jacobian_rotation.dot(arm.qvel) * kd[3:]
        _, lambda_position, lambda_rotation, nullspace = opspace_matrices(
            self._mass, self._j_full, self._j_position, self._j_rotation
        )
        wrench = np.concatenate([lambda_position.dot(force), lambda_rotation.dot(torque)])
        posture_torque = nullspace_torques(self._mass, nullspace, arm.rest_posture, arm.joint_position, arm.qvel[dofs])
        summed: Array = self._j_full.T.dot(wrench) + arm.bias_torque[dofs] + posture_torque
        return summed


def _inertia_index(model: Any, dofs: slice) -> NDArray[np.int64]:
    """(joints, joints) where mujoco's sparse inertia `qM` has the elements of a chain of joints: row by row, from each
    degree of freedom up to the root."""
    joints = range(dofs.stop - dofs.start)
    index = np.empty((len(joints), len(joints)), dtype=np.int64)
    for row in joints:
        assert model.dof_parentid[dofs.start + row] == (dofs.start + row - 1 if row else -1), "the arm is not a chain"
        for column in range(row + 1):
            index[row, column] = index[column, row] = model.dof_Madr[dofs.start + row] + row - column
    return index


def _as_slice(indexes: Any) -> slice:
    """Consecutive indexes as a slice: a view instead of a copy."""
    first, count = int(indexes[0]), len(indexes)
    assert list(indexes) == list(range(first, first + count)), f"the robot's indexes are not consecutive: {indexes}"
    return slice(first, first + count)
