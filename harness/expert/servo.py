"""Closed-loop motion in operational space: from a pose error to one action of LIBERO's OSC controller.

Rotations are those of the grip site, which the controller servoes: +z points ahead and the fingers open along x
(the hand body's frame is turned by 90° about z: there it is y).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tasks.interface import PrivilegedState

Vector = NDArray[np.float64]
"""(3,)"""

OPEN, CLOSED = -1.0, 1.0
METRES_PER_UNIT = 0.05
RADIANS_PER_UNIT = 0.5
POSITION_GAIN = 2.0
"""Commands twice the error: the controller's compliance then stops within 1 mm in free space, without overshoot."""
UP = np.array([0.0, 0.0, 1.0])


def rotation_error(target: NDArray[np.float64], current: NDArray[np.float64]) -> Vector:
    """Axis-angle (3,) [rad] in world that turns `current` (3, 3) into `target` (3, 3)."""
    return Rotation.from_matrix(target @ current.T).as_rotvec()


def servo(
    state: PrivilegedState,
    position_world: Vector,
    rotation_world: NDArray[np.float64],
    gripper: float,
    *,
    speed: float,
    turn_speed: float = 1.0,
) -> NDArray[np.float64]:
    """One action (7,) towards a pose of the end effector.

    Args:
        position_world: (3,) [m].
        rotation_world: (3, 3).
        gripper: `OPEN` or `CLOSED`.
        speed: the largest translation entry, of 1.
        turn_speed: the largest rotation entry, of 1.
    """
    translation = POSITION_GAIN * (position_world - state.eef_position_world) / METRES_PER_UNIT
    largest = np.abs(translation).max()
    if largest > speed:
        translation *= speed / largest
    turn = rotation_error(rotation_world, state.eef_rotation_world) / RADIANS_PER_UNIT
    largest = np.abs(turn).max()
    if largest > turn_speed:
        turn *= turn_speed / largest
    return np.concatenate([translation, turn, [gripper]])


def about(axis: Vector, angle: float) -> NDArray[np.float64]:
    """The rotation (3, 3) by `angle` [rad] about a unit vector in world."""
    return Rotation.from_rotvec(axis * angle).as_matrix()


def gripper_along(approach_world: Vector, finger_axis_world: Vector) -> NDArray[np.float64]:
    """Rotation (3, 3) of the grip site pointing along `approach_world`, its fingers opening along `finger_axis_world`.

    Both (3,), of any length; the part of the finger axis that lies along the approach is left out.
    """
    z = approach_world / np.linalg.norm(approach_world)
    x = finger_axis_world - (finger_axis_world @ z) * z
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def gripper_down(finger_axis_world: Vector) -> NDArray[np.float64]:
    """`gripper_along`, pointing down."""
    return gripper_along(-UP, finger_axis_world)


def nearest_of_pair(
    rotation: NDArray[np.float64], current: NDArray[np.float64], *, undecided: float = 0.0
) -> NDArray[np.float64]:
    """`rotation`, or the same grasp with the fingers swapped, whichever needs less turning.

    A two-finger grasp is equal modulo half a turn about the approach axis; the far one would run into a joint limit.

    Args:
        rotation: (3, 3).
        current: (3, 3), the hand's.
        undecided: angles that differ by less [rad] count as equal; then the one is taken that turns left, seen from above: joint
            7 goes through 0. Where the hand happens to stand would decide otherwise, and a policy could not tell which is meant.
    """
    pair = rotation, rotation @ np.diag([-1.0, -1.0, 1.0])
    errors = [rotation_error(candidate, current) for candidate in pair]
    turns = [float(np.linalg.norm(error)) for error in errors]
    if abs(turns[0] - turns[1]) < undecided:
        return pair[int(errors[0] @ UP < errors[1] @ UP)]
    return pair[int(turns[1] < turns[0])]
