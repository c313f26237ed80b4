"""The simulator's true state, as a policy inside the worker sees it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.sim.simulator import Simulator


class SimulatorPrivilegedState:
    """`tasks.interface.PrivilegedState` of a live simulator; always the present state, nothing is copied ahead."""

    def __init__(self, simulator: Simulator) -> None:
        self._env = simulator.scene.env
        self._data = simulator.scene.data
        self._problem = simulator.scene.problem
        self._robot = self._env.robots[0]
        self._categories = {**self._problem.objects, **self._problem.fixtures}

    @property
    def goal(self) -> tuple[tuple[str, ...], ...]:
        return self._problem.goal

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._env.obj_body_id)

    @property
    def base_position_world(self) -> NDArray[np.float64]:
        return np.array(self._robot.base_pos)

    @property
    def eef_position_world(self) -> NDArray[np.float64]:
        return self._data.site_xpos[self._robot.eef_site_id].copy()

    @property
    def eef_rotation_world(self) -> NDArray[np.float64]:
        return self._data.site_xmat[self._robot.eef_site_id].reshape(3, 3).copy()

    @property
    def finger_width(self) -> float:
        left, right = self._data.qpos[self._robot._ref_gripper_joint_pos_indexes]
        return float(left - right)

    def position_world(self, name: str) -> NDArray[np.float64]:
        if name in self._env.obj_body_id:
            return self._data.xpos[self._env.obj_body_id[name]].copy()
        return self._data.site_xpos[self._env.sim.model.site_name2id(name)].copy()

    def rotation_world(self, name: str) -> NDArray[np.float64]:
        if name in self._env.obj_body_id:
            return self._data.xmat[self._env.obj_body_id[name]].reshape(3, 3).copy()
        return self._data.site_xmat[self._env.sim.model.site_name2id(name)].reshape(3, 3).copy()

    def category(self, name: str) -> str:
        return self._categories[name]
