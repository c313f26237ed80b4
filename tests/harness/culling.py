"""Frames in which culled images are compared with whole ones."""

from __future__ import annotations

import numpy as np

from harness.sim.scene_view import SceneView
from harness.sim.simulator import Simulator
from tasks.interface import CAMERAS, Official, TaskSpec
from tasks.plan import make_episode
from tasks.protocols import openvla
from tests.harness.stock import contact_seeking_actions

STEPS_BETWEEN_FRAMES = 5


def compare_frames(task: TaskSpec, frames: int) -> tuple[int, float]:
    """Draw frames culled and whole: (images that differ, share of the triangles that culled drawings take)."""
    simulator = Simulator(task, openvla())
    generator = np.random.default_rng(task.index)
    actions = iter(contact_seeking_actions(frames * STEPS_BETWEEN_FRAMES, seed=task.index))
    culled, whole = SceneView(simulator.scene, 256), SceneView(simulator.scene, 256, cull=False)
    arm = simulator.scene.env.robots[0]._ref_joint_pos_indexes
    joint_range = simulator.scene.model.jnt_range[simulator.scene.env.robots[0]._ref_joint_indexes]
    simulator.reset(make_episode(task, Official(index=0), openvla()))
    unequal, drawn, all_triangles = 0, 0, 0
    for frame in range(frames):
        for _ in range(STEPS_BETWEEN_FRAMES):
            simulator.step(next(actions))
        qpos, sites = simulator.sampled.qpos.copy(), simulator.sampled.sites_rgba
        if frame % 2:
            qpos[arm] = generator.uniform(*joint_range.T)
        for camera in CAMERAS:
            unequal += not np.array_equal(culled.images((camera,), qpos, sites), whole.images((camera,), qpos, sites))
            drawn += culled.triangles_drawn
            all_triangles += whole.triangles_drawn
    culled.close()
    whole.close()
    simulator.close()
    return unequal, drawn / all_triangles
