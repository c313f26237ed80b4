"""Three real demonstrations, and files made of them in the shapes that are met in the wild.

`assets/lift.hdf5` holds the first three of the ten human Lift demonstrations that robomimic 0.1.0 (MIT licence) carries as
`tests/assets/test.hdf5`, without what is not read here, compressed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

LIFT = Path(__file__).parent / "assets" / "lift.hdf5"
CAMERAS = {"agentview_rgb": "agentview_image", "eye_in_hand_rgb": "robot0_eye_in_hand_image"}


def write_libero(
    file: Path,
    *,
    task: str = "",
    instruction: str = "",
    after: bool = False,
    demos: Sequence[str] = ("demo_0", "demo_1", "demo_2"),
    suite: str = "libero_object",
) -> Path:
    """The Lift demonstrations as a file in LIBERO's layout.

    Args:
        task: LIBERO's name, put into `bddl_file_name`; empty: no such attribute.
        instruction: put into `problem_info`; empty: no such attribute.
        after: record each observation after the action of its index, as LIBERO's original files do.
    """
    from tasks.demonstrations.layouts import axis_angle

    with h5py.File(LIFT) as source, h5py.File(file, "w") as out:
        data = out.create_group("data")
        if task:
            data.attrs["bddl_file_name"] = f"libero/libero/bddl_files/{suite}/{task}.bddl"
        if instruction:
            data.attrs["problem_info"] = json.dumps({"language_instruction": instruction})
        for number, name in enumerate(demos):
            recorded = source["data"][name]
            seen = slice(1, None) if after else slice(0, None)
            done = slice(0, -1) if after else slice(0, None)
            demo = data.create_group(f"demo_{number}")
            demo["actions"], demo["states"] = recorded["actions"][done], recorded["states"][done]
            observations = recorded["obs"]
            for ours, theirs in CAMERAS.items():
                demo[f"obs/{ours}"] = observations[theirs][seen][:, ::-1]
            demo["obs/ee_pos"] = observations["robot0_eef_pos"][seen]
            demo["obs/ee_ori"] = axis_angle(np.asarray(observations["robot0_eef_quat"][seen]))
            demo["obs/gripper_states"] = observations["robot0_gripper_qpos"][seen]
            demo["obs/joint_states"] = observations["robot0_joint_pos"][seen]
    return file
