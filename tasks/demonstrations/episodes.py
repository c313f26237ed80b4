"""Demonstrations as a learner needs them: what was seen at a moment beside what was done next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from tasks.demonstrations.hdf5 import DemonstrationError, DemonstrationFile
from tasks.demonstrations.layouts import Layout, axis_angle, find_layout
from tasks.demonstrations.timing import ObservationTiming, observation_timing
from tasks.image_conventions import convert_images
from tasks.interface import ImageConvention, state_sha256

DEMOS_LOOKED_AT = 5
"""Demonstrations from which a file's timing is read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """One demonstration: observation t was taken just before action t."""

    name: str
    """File and demonstration, for messages."""
    images: NDArray[np.uint8]
    """(T, C, H, W, 3) in the cameras' order and the convention asked for."""
    proprio: NDArray[np.float32]
    """(T, 8): eef position in world [m] (3), axis-angle [rad] (3), finger joint positions [m] (2)."""
    actions: NDArray[np.float64]
    """(T, 7)"""
    init_state_sha256: str
    """Of the first state (time, qpos, qvel); empty where the file has no states."""


def aligned(
    name: str,
    images: NDArray[np.uint8],
    proprio: NDArray[np.float32],
    actions: NDArray[np.float64],
    *,
    timing: ObservationTiming,
    init_state_sha256: str,
) -> Episode:
    """An episode of what was recorded side by side, each observation beside the action that followed it.

    Raises:
        DemonstrationError: nothing is left.
    """
    if timing == "after":  # the last observation has no action, the first action no observation
        images, proprio, actions = images[:-1], proprio[:-1], actions[1:]
    if not len(actions):
        raise DemonstrationError(f"{name}: expected at least two steps, got one")
    return Episode(name=name, images=images, proprio=proprio, actions=actions, init_state_sha256=init_state_sha256)


class EpisodeReader:
    """The demonstrations of one file, one at a time; a context manager.

    Args:
        file: LIBERO's HDF5 or robomimic's.
        cameras: in the order wanted.
        convention: of the images wanted.
        timing: whether `obs[t]` was taken before or after `actions[t]`; None: read off the numbers.

    Raises:
        DemonstrationError: a camera is missing, or the timing cannot be told.
    """

    def __init__(
        self,
        file: Path,
        *,
        cameras: Sequence[str],
        convention: ImageConvention,
        timing: ObservationTiming | None = None,
    ) -> None:
        self._demonstrations = DemonstrationFile(file)
        self._file, self._cameras, self._convention = file, tuple(cameras), convention
        try:
            self._layout = self._find_layout()
            self.timing = timing or self._timing()
        except BaseException:
            self._demonstrations.close()
            raise

    def __enter__(self) -> EpisodeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._demonstrations.close()

    @property
    def demos(self) -> tuple[str, ...]:
        """Names of the demonstrations, in numerical order."""
        return self._demonstrations.demos

    def episode(self, demo: str) -> Episode:
        """One demonstration, aligned.

        Raises:
            DemonstrationError: something is missing, of another shape, or not finite; the message says where.
        """
        actions = self._demonstrations.demonstration(demo).actions
        group = self._demonstrations.group(demo)
        images, proprio = self._images(group, demo, len(actions)), self._proprio(group, demo, len(actions))
        first = np.asarray(group["states"][0], dtype=np.float64) if "states" in group else None
        return aligned(
            f"{self._file} {demo}",
            images,
            proprio,
            actions,
            timing=self.timing,
            init_state_sha256="" if first is None else state_sha256(first),
        )

    def _observations(self, demo: str) -> h5py.Group:
        group = self._demonstrations.group(demo)
        if "obs" not in group:
            raise DemonstrationError(
                f"{self._file} {demo}: expected a group `obs` with images, found {', '.join(group)}. "
                "Files that hold actions and states alone can be replayed, not trained on."
            )
        return group["obs"]

    def _find_layout(self) -> Layout:
        observations = self._observations(self.demos[0])
        layout = find_layout(observations)
        if layout is None:
            raise DemonstrationError(
                f"{self._file}: expected LIBERO's observations (ee_pos, ee_ori, gripper_states) or robomimic's "
                f"(robot0_eef_pos, robot0_eef_quat, robot0_gripper_qpos), found {', '.join(observations)}"
            )
        for camera in self._cameras:
            if camera not in layout.images:
                raise DemonstrationError(f"unknown camera {camera!r}; LIBERO's are {', '.join(layout.images)}")
            if layout.images[camera] not in observations:
                there = [name for name, dataset in layout.images.items() if dataset in observations]
                raise DemonstrationError(
                    f"{self._file}: no images of camera {camera} (obs/{layout.images[camera]}); the file has "
                    f"{', '.join(there) or 'none'}. Choose with --cameras."
                )
        return layout

    def _timing(self) -> ObservationTiming:
        joints, states = [], []
        for demo in self.demos[:DEMOS_LOOKED_AT]:
            group = self._demonstrations.group(demo)
            if "states" in group and self._layout.joint_positions in group["obs"]:
                joints.append(np.asarray(group["obs"][self._layout.joint_positions], dtype=np.float64))
                states.append(np.asarray(group["states"], dtype=np.float64))
        timing = observation_timing(joints, states)
        if timing is None:
            raise DemonstrationError(
                f"{self._file}: cannot tell whether observations were taken before or after the action of the same index "
                f"(needs `states` and obs/{self._layout.joint_positions} of a moving arm). Say it: --observation-timing before "
                "(robomimic, no-noops) or after (LIBERO's original files)."
            )
        return timing

    def _images(self, group: h5py.Group, demo: str, steps: int) -> NDArray[np.uint8]:
        observations = self._observations(demo)
        views = []
        for camera in self._cameras:
            name = self._layout.images[camera]
            dataset = observations.get(name)
            if dataset is None:
                raise DemonstrationError(f"{self._file} {demo}: expected images obs/{name}, there are none")
            if dataset.dtype != np.uint8 or dataset.ndim != 4 or dataset.shape[0] != steps or dataset.shape[3] != 3:
                raise DemonstrationError(
                    f"{self._file} {demo}: expected obs/{name} uint8 ({steps}, H, W, 3), got {dataset.dtype} {dataset.shape}"
                )
            views.append(np.asarray(dataset))
        if len({view.shape for view in views}) > 1:
            sizes = ", ".join(f"{c} {v.shape[1:3]}" for c, v in zip(self._cameras, views, strict=True))
            raise DemonstrationError(f"{self._file} {demo}: expected images of one size, got {sizes}")
        return convert_images(np.stack(views, axis=1), self._layout.image_convention, self._convention)

    def _proprio(self, group: h5py.Group, demo: str, steps: int) -> NDArray[np.float32]:
        observations = self._observations(demo)
        parts = []
        names = (self._layout.eef_position, self._layout.eef_orientation, self._layout.finger_positions)
        for name, widths in zip(names, ((3,), (3, 4), (2,)), strict=True):
            if name not in observations:
                raise DemonstrationError(f"{self._file} {demo}: expected obs/{name}, there is none")
            values = np.asarray(observations[name], dtype=np.float64)
            if values.ndim != 2 or len(values) != steps or values.shape[1] not in widths:
                raise DemonstrationError(
                    f"{self._file} {demo}: expected obs/{name} ({steps}, {widths[0]}), got {values.shape}"
                )
            if not np.isfinite(values).all():
                step = np.argwhere(~np.isfinite(values))[0][0]
                raise DemonstrationError(f"{self._file} {demo}: expected finite obs/{name}, step {step} is not")
            parts.append(values)
        return np.concatenate([parts[0], axis_angle(parts[1]), parts[2]], axis=1).astype(np.float32)
