"""The two kinds of HDF5 demonstration files: what their datasets are called and how their images lie.

LIBERO's (`scripts/create_dataset.py` of its repository; OpenVLA's regenerated "no-noops" files use the same names) keeps images as
OpenGL gives them, the first row at the bottom. robomimic's environment wrapper flips them before they are stored
(`robomimic/envs/env_robosuite.py`), so that its files show the true view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.interface import ImageConvention


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The names in one kind of file, below `data/demo_N/obs`."""

    name: str
    image_convention: ImageConvention
    images: Mapping[str, str]
    """Camera → dataset of uint8 (T, H, W, 3)."""
    eef_position: str
    """(T, 3) [m], world frame."""
    eef_orientation: str
    """(T, 3) axis-angle [rad], or (T, 4) quaternion as (x, y, z, w)."""
    finger_positions: str
    """(T, 2) [m]"""
    joint_positions: str
    """(T, 7) [rad]; tells when an observation was taken."""


LAYOUTS = (
    Layout(
        name="LIBERO",
        image_convention="raw",
        images={"agentview": "agentview_rgb", "robot0_eye_in_hand": "eye_in_hand_rgb"},
        eef_position="ee_pos",
        eef_orientation="ee_ori",
        finger_positions="gripper_states",
        joint_positions="joint_states",
    ),
    Layout(
        name="robomimic",
        image_convention="true_view",
        images={"agentview": "agentview_image", "robot0_eye_in_hand": "robot0_eye_in_hand_image"},
        eef_position="robot0_eef_pos",
        eef_orientation="robot0_eef_quat",
        finger_positions="robot0_gripper_qpos",
        joint_positions="robot0_joint_pos",
    ),
)


def find_layout(datasets: Mapping[str, Any]) -> Layout | None:
    """The layout whose names of the robot's state are all there; None without one."""
    for layout in LAYOUTS:
        if all(name in datasets for name in (layout.eef_position, layout.eef_orientation, layout.finger_positions)):
            return layout
    return None


def axis_angle(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 3) axis-angle as it is, or (T, 4) quaternions (x, y, z, w) → (T, 3) [rad], angles in [0, 2π].

    As robosuite's `quat2axisangle`: the sign of w is not made positive first, because the environment does not either.
    """
    if orientation.shape[1] == 3:
        return orientation
    w = np.clip(orientation[:, 3], -1.0, 1.0)
    sine = np.sqrt(1.0 - w * w)
    turned = sine > 1e-9
    scale = np.where(turned, 2.0 * np.arccos(w) / np.where(turned, sine, 1.0), 0.0)
    return orientation[:, :3] * scale[:, None]
