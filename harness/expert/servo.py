"""Closed-loop motion in operational space: from a pose error to one action of LIBERO's OSC controller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tasks.interface import PrivilegedState

OPEN, CLOSED = -1.0, 1.0
METRES_PER_UNIT = 0.05
RADIANS_PER_UNIT = 0.5
POSITION_GAIN = 2.0
"""Commands twice the error: the controller's compliance then stops within 1 mm in free space, without overshoot."""


def rotation_error(target: NDArray[np.float64], current: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis-angle (3,) [rad] in world that turns `current` (3, 3) into `target` (3, 3)."""
    return Rotation.from_matrix(target @ current.T).as_rotvec()


def servo(
    state: PrivilegedState,
    position_world: NDArray[np.float64],
    rotation_world: NDArray[np.float64],
    gripper: float,
    speed: float,
) -> NDArray[np.float64]:
    """One action (7,) towards a pose of the end effector.

    Args:
        position_world: (3,) [m].
        rotation_world: (3, 3).
        gripper: `OPEN` or `CLOSED`.
        speed: the largest translation entry, of 1.
    """
    translation = POSITION_GAIN * (position_world - state.eef_position_world) / METRES_PER_UNIT
    largest = np.abs(translation).max()
    if largest > speed:
        translation *= speed / largest
    turn = np.clip(rotation_error(rotation_world, state.eef_rotation_world) / RADIANS_PER_UNIT, -1.0, 1.0)
    return np.concatenate([translation, turn, [gripper]])


def gripper_down(finger_axis_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation (3, 3) of the grip site, pointing down, its fingers opening along a horizontal axis (3,).

    In the grip site's frame, which the controller servoes, +z points ahead and the fingers open along x
    (the hand body's frame is turned by 90° about z: there it is y).
    """
    z = np.array([0.0, 0.0, -1.0])
    x = finger_axis_world / np.linalg.norm(finger_axis_world)
    return np.stack([x, np.cross(z, x), z], axis=1)


def nearest_of_pair(rotation: NDArray[np.float64], current: NDArray[np.float64]) -> NDArray[np.float64]:
    """`rotation`, or the same grasp with the fingers swapped, whichever needs less turning.

    A two-finger grasp is equal modulo half a turn about the approach axis; the far one would run into a joint limit.
    """
    swapped = rotation @ np.diag([-1.0, -1.0, 1.0])
    turns = [float(np.linalg.norm(rotation_error(candidate, current))) for candidate in (rotation, swapped)]
    return rotation if turns[0] <= turns[1] else swapped
