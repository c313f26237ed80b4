"""Writes demonstrations as LIBERO's HDF5, the layout of `scripts/create_dataset.py` in its repository.

Two things differ from LIBERO's own files, both in how they are read already: an observation is the one before the action of the same
index (as in OpenVLA's regenerated "no-noops" files; LIBERO's are from after it), and no step is left out.
Where what was executed differs from what is to be learnt, `executed_actions` has the former.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tasks.demonstrations.hdf5 import DemonstrationError
from tasks.demonstrations.layouts import LAYOUTS

LIBERO_LAYOUT = LAYOUTS[0]
ROBOSUITE_ENV = 1
"""robomimic's number for robosuite's kind of environment (`EnvType.ROBOSUITE_TYPE`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAttributes:
    """What a file says of its task."""

    env_name: str
    """LIBERO's environment class."""
    bddl_file: Path
    instruction: str
    env_kwargs: dict[str, Any]
    """Arguments that make the environment again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedDemonstration:
    """One demonstration of T steps; everything is from before the action of the same index."""

    agentview: NDArray[np.uint8]
    """(T, H, W, 3) as OpenGL gives it, the first row at the bottom."""
    eye_in_hand: NDArray[np.uint8]
    """(T, H, W, 3) likewise."""
    eef_position: NDArray[np.float64]
    """(T, 3) in world [m]"""
    eef_axis_angle: NDArray[np.float64]
    """(T, 3) [rad], angles in [0, 2π]"""
    finger_positions: NDArray[np.float64]
    """(T, 2) [m]"""
    joint_positions: NDArray[np.float64]
    """(T, 7) [rad]"""
    actions: NDArray[np.float64]
    """(T, 7): what is to be learnt."""
    executed_actions: NDArray[np.float64]
    """(T, 7): what was done."""
    states: NDArray[np.float64]
    """(T, 1 + nq + nv): time, qpos, qvel."""
    model_xml: str
    episode: str
    """JSON of what begins this very episode again."""


def write_demonstration(file: Path, task: TaskAttributes, demonstration: RecordedDemonstration) -> None:
    """Write a file of one demonstration, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """

    def fill(data: h5py.Group) -> None:
        data.attrs["env_name"] = task.env_name
        data.attrs["problem_info"] = json.dumps(
            {
                "problem_name": task.env_name.lower(),
                "domain_name": "robosuite",
                "language_instruction": task.instruction,
            }
        )
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["bddl_file_name"] = f"{task.bddl_file.parent.name}/{task.bddl_file.name}"
        data.attrs["bddl_file_content"] = task.bddl_file.read_text()
        data.attrs["env_args"] = json.dumps(
            {
                "type": ROBOSUITE_ENV,
                "env_name": task.env_name,
                "problem_name": task.env_name.lower(),
                "bddl_file": f"{task.bddl_file.parent.name}/{task.bddl_file.name}",
                "env_kwargs": task.env_kwargs,
            }
        )
        _fill_demonstration(data.create_group("demo_0"), demonstration)
        _count(data)

    _write_whole(file, fill)


def join_demonstrations(parts: Sequence[Path], file: Path) -> None:
    """Join files of one task into one, `demo_0` and up in the order given; whole or not at all.

    Raises:
        DemonstrationError: a part is damaged.
        OSError: the disk is full, or the folder cannot be written.
    """

    def fill(data: h5py.Group) -> None:
        number = 0
        for part in parts:
            try:
                with h5py.File(part, "r") as source:
                    if number == 0:
                        data.attrs.update(source["data"].attrs)
                    for name in sorted(source["data"], key=lambda name: (len(name), name)):
                        source.copy(source["data"][name], data, f"demo_{number}")
                        number += 1
            except (OSError, KeyError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise DemonstrationError(
                    f"{part}: not a readable demonstration; remove it and repeat: {error}"
                ) from error
        _count(data)

    _write_whole(file, fill)


def _write_whole(file: Path, fill: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as out:
            fill(out.create_group("data"))
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _count(data: h5py.Group) -> None:
    data.attrs["num_demos"] = len(data)
    data.attrs["total"] = sum(int(demo.attrs["num_samples"]) for demo in data.values())


def _fill_demonstration(group: h5py.Group, demonstration: RecordedDemonstration) -> None:
    layout, steps = LIBERO_LAYOUT, len(demonstration.actions)
    half_angles = np.linalg.norm(demonstration.eef_axis_angle, axis=1, keepdims=True) / 2
    axes = demonstration.eef_axis_angle / np.maximum(2 * half_angles, 1e-12)
    quaternions = np.hstack([axes * np.sin(half_angles), np.cos(half_angles)])  # (T, 4) x, y, z, w
    observations = group.create_group("obs")
    observations[layout.finger_positions] = demonstration.finger_positions
    observations[layout.joint_positions] = demonstration.joint_positions
    observations["ee_states"] = np.hstack([demonstration.eef_position, demonstration.eef_axis_angle])
    observations[layout.eef_position] = demonstration.eef_position
    observations[layout.eef_orientation] = demonstration.eef_axis_angle
    observations[layout.images["agentview"]] = demonstration.agentview
    observations[layout.images["robot0_eye_in_hand"]] = demonstration.eye_in_hand
    group["actions"] = demonstration.actions
    if not np.array_equal(demonstration.actions, demonstration.executed_actions):
        group["executed_actions"] = demonstration.executed_actions
    group["states"] = demonstration.states
    group["robot_states"] = np.hstack([demonstration.finger_positions, demonstration.eef_position, quaternions])
    last = np.zeros(steps, dtype=np.uint8)
    last[-1] = 1
    group["rewards"], group["dones"] = last, last
    group.attrs["num_samples"] = steps
    group.attrs["model_file"] = demonstration.model_xml
    group.attrs["init_state"] = demonstration.states[0]
    group.attrs["episode"] = demonstration.episode
