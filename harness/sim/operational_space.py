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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import compiled
from harness.sim.stack import control_utils, mujoco

Array = NDArray[np.float64]
opspace_matrices = control_utils.opspace_matrices
nullspace_torques = control_utils.nullspace_torques
orientation_error = control_utils.orientation_error
_ARM_ACTION_DIM = 6
TRIALS = 50
"""Commands computed both ways, two control steps; libraries that round differently differ in nearly every one."""


@compiled
def arm_torques(  # noqa: PLR0917 (compiled functions take arrays by position)
    jacobian: Array,
    inertia: Array,
    inertia_index: NDArray[np.int64],
    first_dof: int,
    goal_position: Array,
    eef_position: Array,
    goal_rotation: Array,
    eef_rotation: Array,
    gains: Array,
    rest_posture: Array,
    joint_position: Array,
    qvel: Array,
    bias_torque: Array,
    torques: Array,
) -> None:
    """`OperationalSpaceControl.torques_with_numpy`, compiled as a whole. Every array costs time to hand over: there are few.

    Args:
        jacobian: (6, nv) of the grip site.
        inertia: mujoco's sparse `qM` of everything.
        inertia_index: (joints, joints) where in it the arm's own lies.
        first_dof: of the arm's.
        gains: (2, 6) stiffness and damping.
        qvel, bias_torque: (nv,) of everything.
        torques: (joints,) [Nm] before clipping, to be filled.
    """
    joints = len(torques)
    mass = np.empty((joints, joints)).T  # Fortran order, as below
    j_full, j_position, j_rotation = np.empty((joints, 6)).T, np.empty((joints, 3)).T, np.empty((joints, 3)).T
    for column in range(joints):
        for row in range(joints):
            mass[row, column] = inertia[inertia_index[row, column]]
        j_full[:, column] = jacobian[:, first_dof + column]
        j_position[:, column] = jacobian[:3, first_dof + column]
        j_rotation[:, column] = jacobian[3:, first_dof + column]
    rotation_error = orientation_error(goal_rotation, eef_rotation)
    force = (goal_position - eef_position) * gains[0, :3] + -np.dot(jacobian[:3], qvel) * gains[1, :3]
    torque = rotation_error * gains[0, 3:] + -np.dot(jacobian[3:], qvel) * gains[1, 3:]
    _, lambda_position, lambda_rotation, nullspace = opspace_matrices(mass, j_full, j_position, j_rotation)
    wrench = np.empty(6)
    wrench[:3] = np.dot(lambda_position, force)
    wrench[3:] = np.dot(lambda_rotation, torque)
    arm = slice(first_dof, first_dof + joints)
    posture_torque = nullspace_torques(mass, nullspace, rest_posture, joint_position, qvel[arm])
    torques[:] = np.dot(j_full.T, wrench) + bias_torque[arm] + posture_torque


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
        self._site = robot.eef_site_id
        self._joint_qpos = _as_slice(robot._ref_joint_pos_indexes)
        self._joint_dofs = _as_slice(robot._ref_joint_vel_indexes)
        self._arm_actuators = _as_slice(robot._ref_joint_actuator_indexes)
        self._finger_actuators = _as_slice(robot._ref_joint_gripper_actuator_indexes)
        self._torque_low, self._torque_high = (limit.copy() for limit in robot.torque_limits)
        low, high = model.actuator_ctrlrange[self._finger_actuators].T
        bias, weight = 0.5 * (high + low), 0.5 * (high - low)
        self._fingers = list(zip(bias.tolist(), weight.tolist(), strict=True))
        # The rotation and position of the site, and the joints' state, are read in place.
        self._eef_position_world = data.site_xpos[self._site]
        self._eef_rotation_world = data.site_xmat[self._site].reshape(3, 3)
        self._inertia, self._qvel, self._bias_torques = data.qM, data.qvel, data.qfrc_bias
        self._joint_position = data.qpos[self._joint_qpos]
        self._joint_velocity = data.qvel[self._joint_dofs]
        self._arm_command = data.ctrl[self._arm_actuators]
        self._finger_command = data.ctrl[self._finger_actuators]
        nv, joints = model.nv, len(self._joint_velocity)
        self._jacobian = np.zeros((6, nv))
        self._jacobian_position, self._jacobian_rotation = self._jacobian[:3], self._jacobian[3:]
        self._inertia_index = _inertia_index(model, self._joint_dofs)
        self._torques = np.empty(joints)
        # Fortran order: what fancy indexing of a column range makes, and so what stock hands to BLAS.
        self._j_position = np.zeros((3, joints), order="F")
        self._j_rotation = np.zeros((3, joints), order="F")
        self._j_full = np.zeros((6, joints), order="F")
        self._trials_left = TRIALS
        self._libraries_agree = True
        self._mass = np.zeros((joints, joints), order="F")

    def take_over(self, action: NDArray[np.float64]) -> None:
        """Go on where robosuite's controller, which has just begun with `action`, stands: its gains and goal."""
        controller = self._robot.controller
        assert controller.impedance_mode == "fixed", "variable gains are set with every action"
        assert controller.uncoupling, "the coupled control law is not implemented"
        assert controller.interpolator_pos is None, "interpolation is not implemented"
        assert controller.interpolator_ori is None, "interpolation is not implemented"
        assert controller.use_delta, "absolute goals are not implemented"
        assert controller.use_ori, "position-only control is not implemented"
        self._controller = controller
        self._gains = np.array([controller.kp, controller.kd])
        self._rest_posture = controller.initial_joint
        self._goal_position_world = np.array(controller.goal_pos)
        self._goal_rotation_world = np.array(controller.goal_ori)
        self._finger_opening: list[float] = self._robot.gripper.current_action.tolist()
        self._set_finger_step(action)

    def set_goal(self, action: NDArray[np.float64]) -> None:
        """`action` (7,) in [-1, 1]: translation, rotation as axis-angle, gripper. The poses must be those of now."""
        controller = self._controller
        scaled = controller.scale_action(action[:_ARM_ACTION_DIM])
        if any(not math.isclose(angle, 0.0) for angle in scaled[3:]):  # without rotation stock keeps the old goal
            self._goal_rotation_world = control_utils.set_goal_orientation(
                scaled[3:], self._eef_rotation_world, orientation_limit=controller.orientation_limits
            )
        self._goal_position_world = control_utils.set_goal_position(
            scaled[:3], self._eef_position_world, position_limit=controller.position_limits
        )
        self._set_finger_step(action)

    def _set_finger_step(self, action: NDArray[np.float64]) -> None:
        step = np.array([-1.0, 1.0]) * self._robot.gripper.speed * np.sign(action[_ARM_ACTION_DIM:])
        self._finger_step: list[float] = step.tolist()

    def command(self) -> None:
        """Compute torques from the present state, and set all of the robot's actuators."""
        np.minimum(np.maximum(self._arm_torques(), self._torque_low), self._torque_high, out=self._arm_command)
        for finger, (bias, weight) in enumerate(
            self._fingers
        ):  # plain floats: an array of two takes five times as long
            opening = min(max(self._finger_opening[finger] + self._finger_step[finger], -1.0), 1.0)
            self._finger_opening[finger] = opening
            self._finger_command[finger] = bias + weight * opening

    def _arm_torques(self) -> Array:
        """(joints,) [Nm] before clipping."""
        mujoco.mj_jacSite(self._model, self._data, self._jacobian_position, self._jacobian_rotation, self._site)
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
        arm_torques(
            self._jacobian,
            self._inertia,
            self._inertia_index,
            self._joint_dofs.start,
            self._goal_position_world,
            self._eef_position_world,
            self._goal_rotation_world,
            self._eef_rotation_world,
            self._gains,
            self._rest_posture,
            self._joint_position,
            self._qvel,
            self._bias_torques,
            self._torques,
        )
        return self._torques

    def torques_with_numpy(self) -> Array:
        """As `torques_compiled`, with robosuite's functions and numpy's matrix products, each where stock has it."""
        dofs, (kp, kd) = self._joint_dofs, self._gains
        self._mass[:] = self._inertia[self._inertia_index]
        self._j_full[:] = self._jacobian[:, dofs]
        self._j_position[:] = self._jacobian_position[:, dofs]
        self._j_rotation[:] = self._jacobian_rotation[:, dofs]
        rotation_error = orientation_error(self._goal_rotation_world, self._eef_rotation_world)
        position_error = self._goal_position_world - self._eef_position_world
        force = position_error * kp[:3] + -self._jacobian_position.dot(self._qvel) * kd[:3]
        torque = rotation_error * kp[3:] + -self._jacobian_rotation.dot(self._qvel) * kd[3:]
        _, lambda_position, lambda_rotation, nullspace = opspace_matrices(
            self._mass, self._j_full, self._j_position, self._j_rotation
        )
        wrench = np.concatenate([lambda_position.dot(force), lambda_rotation.dot(torque)])
        posture_torque = nullspace_torques(
            self._mass, nullspace, self._rest_posture, self._joint_position, self._joint_velocity
        )
        summed: Array = self._j_full.T.dot(wrench) + self._bias_torques[dofs] + posture_torque
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
