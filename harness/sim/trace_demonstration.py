"""Turns a demonstration's trace into what is learnt from: renders every observation, into LIBERO's HDF5 or a decoded set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from harness.sim.scene import Scene
from harness.sim.settings import RolloutSettings
from harness.sim.trace_scene import TraceScenes
from results.trace import Trace, TraceError, read_trace, trace_path
from tasks.demonstrations.hdf5_writer import RecordedDemonstration, TaskAttributes, write_demonstration
from tasks.demonstrations.planned_set import PlannedEpisode
from tasks.image_conventions import convert_images
from tasks.interface import CAMERAS, CONTROL_HZ, EpisodeSpec, Official, Sampled
from tasks.plan import init_label

ARM_JOINTS = 7


class TraceDemonstrations:
    """Writes demonstrations one after another, keeping the last task's model.

    Args:
        settings: of the run.
        size_px: height and width of the images.
    """

    def __init__(self, settings: RolloutSettings, *, size_px: int) -> None:
        self._settings = settings
        self._size_px = size_px
        self._scenes = TraceScenes(size_px)

    def render(self, spec: EpisodeSpec, into: Path | PlannedEpisode) -> None:
        """Write one demonstration: a file of LIBERO's HDF5, or its place in a decoded set.

        Raises:
            TraceError: the trace is missing, damaged, of another model, or of no demonstration.
            OSError: the file cannot be written.
        """
        trace = read_trace(self._settings.run_dir / trace_path(spec.episode_id))
        if len(trace.labels) != len(trace.actions):
            raise TraceError(f"the trace of {spec.episode_id} is of no demonstration: it has no expert's actions")
        rows = query_rows(trace)
        shown = self._scenes.open(spec, trace)
        every = into.place.image_every if isinstance(into, PlannedEpisode) else 1
        images = np.stack([shown.observation(row, CAMERAS) for row in rows[::every]])  # (T, 2, size, size, 3)
        if isinstance(into, PlannedEpisode):
            into.write(
                convert_images(images, "raw", into.convention),
                trace.query_proprio[rows],
                trace.labels,
                trace.state_sha256(0),
            )
            return
        proprio = trace.query_proprio[rows].astype(np.float64)
        write_demonstration(
            into,
            self._attributes(spec, shown.scene),
            RecordedDemonstration(
                agentview=images[:, 0],
                eye_in_hand=images[:, 1],
                eef_position=proprio[:, :3],
                eef_axis_angle=proprio[:, 3:6],
                finger_positions=proprio[:, 6:],
                joint_positions=trace.query_qpos[rows, :ARM_JOINTS],
                actions=trace.labels,
                executed_actions=trace.actions,
                states=np.concatenate([trace.time_s[:-1, None], trace.qpos[:-1], trace.qvel[:-1]], axis=1),
                model_xml=model_xml(shown.scene),
                episode=_episode(spec, trace),
            ),
        )

    def _attributes(self, spec: EpisodeSpec, scene: Scene) -> TaskAttributes:
        name = scene.env.__class__.__name__
        size: dict[str, Any] = {"camera_heights": self._size_px, "camera_widths": self._size_px}
        return TaskAttributes(
            env_name=name,
            bddl_file=spec.task.bddl_file,
            instruction=spec.task.instruction_bddl,
            env_kwargs={
                "bddl_file_name": spec.task.bddl_file.name,
                "robots": ["Panda"],
                "controller_configs": {"type": "OSC_POSE"},
                "gripper_types": "default",
                "initialization_noise": None,
                "use_camera_obs": True,
                "has_renderer": False,
                "has_offscreen_renderer": True,
                "camera_names": ["robot0_eye_in_hand", "agentview"],
                "camera_depths": False,
                "ignore_done": True,
                "reward_shaping": True,
                "control_freq": CONTROL_HZ,
                **size,
            },
        )


def query_rows(trace: Trace) -> list[int]:
    """The query that was made before each action.

    Raises:
        TraceError: an action has none.
    """
    rows = {int(step): row for row, step in enumerate(trace.query_steps)}
    missing = [step for step in range(len(trace.actions)) if step not in rows]
    if missing:
        raise TraceError(f"the trace of {trace.episode_id} has no observation before step {missing[0]}")
    return [rows[step] for step in range(len(trace.actions))]


def _episode(spec: EpisodeSpec, trace: Trace) -> str:
    """JSON of what begins this very episode again, and the fingerprint of the state it ends in."""
    assert isinstance(spec.init, Official | Sampled)
    return json.dumps(
        {
            "suite": spec.task.suite,
            "task": spec.task.index,
            "protocol": spec.protocol,
            "init": {"kind": type(spec.init).__name__.lower(), **dataclasses.asdict(spec.init)},
            "init_label": init_label(spec.init),
            "final_state_sha256": trace.state_sha256(-1),
        }
    )


def model_xml(scene: Scene) -> str:
    """The scene's MuJoCo XML with its fixtures where they are now, every digit written."""
    tree = ElementTree.fromstring(scene.env.model.get_xml())
    poses = dict(zip(scene.fixture_body_names, scene.fixture_poses().tolist(), strict=True))
    for body in tree.iter("body"):
        pose = poses.get(body.get("name", ""))
        if pose is not None:
            body.set("pos", " ".join(map(repr, pose[:3])))
            body.set("quat", " ".join(map(repr, pose[3:])))
    return ElementTree.tostring(tree, encoding="unicode")
