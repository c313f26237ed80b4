"""The simulator's true state, as a policy inside the worker sees it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.simulator import Simulator
from tasks.boxes import Boxes


class SimulatorPrivilegedState:
    """`tasks.interface.PrivilegedState` of a live simulator; always the present state, nothing is copied ahead."""

    def __init__(self, simulator: Simulator) -> None:
        self._env = simulator.scene.env
        self._model = simulator.scene.model
        self._data = simulator.scene.data
        self._problem = simulator.scene.problem
        self._robot = self._env.robots[0]
        self._geoms: dict[str, NDArray[np.intp]] = {}
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
    def arm_joints(self) -> NDArray[np.float64]:
        return self._data.qpos[self._robot._ref_joint_pos_indexes].copy()

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

    @property
    def categories(self) -> dict[str, str]:
        return self._categories

    def parent(self, region: str) -> str:
        return str(self._env.object_sites_dict[region].parent_name) if region in self._env.object_sites_dict else ""

    def half_extent_world(self, region: str) -> NDArray[np.float64]:
        size = np.asarray(self._env.object_sites_dict[region].size, dtype=np.float64)
        return np.abs(self.rotation_world(region) @ size)

    def boxes(self, name: str) -> Boxes:
        geoms = self._collision_geoms(name)
        axes = self._data.geom_xmat[geoms].reshape(-1, 3, 3)
        middle, half_sizes = self._model.geom_aabb[geoms].reshape(-1, 2, 3).transpose(1, 0, 2)
        return Boxes(
            centres=self._data.geom_xpos[geoms] + np.einsum("nij,nj->ni", axes, middle),
            axes=axes.copy(),
            half_sizes=half_sizes.copy(),
        )

    def joint_position(self, name: str) -> float:
        part = self._part(name)
        if not part.joints:
            raise ValueError(f"{name} has no joint")
        return float(self._data.qpos[self._env.sim.model.get_joint_qpos_addr(part.joints[0])])

    def holds(self, predicate: tuple[str, ...]) -> bool:
        kind, name = predicate[:2]
        if kind in ("turnon", "turnoff"):  # LIBERO's own test of these changes what the stove looks like
            ranges = self._env.get_object(name).object_properties["articulation"]
            if kind == "turnon":
                return self.joint_position(name) >= min(ranges["default_turnon_ranges"])
            return self.joint_position(name) < max(ranges["default_turnoff_ranges"])
        return bool(self._env._eval_predicate(predicate))

    def fingers_touch(self, name: str) -> int:
        other = set(self._collision_geoms(name).tolist())
        pairs = self._data.contact.geom[: self._data.ncon]
        touching = {int(a) for a, b in pairs if b in other} | {int(b) for a, b in pairs if a in other}
        return sum(bool(touching & finger) for finger in self._finger_geoms)

    def _part(self, name: str) -> Any:
        return self._env.object_sites_dict.get(name) or self._env.get_object(name)

    @functools.cached_property
    def _finger_geoms(self) -> tuple[set[int], ...]:
        names = self._robot.gripper.important_geoms
        return tuple(
            {self._env.sim.model.geom_name2id(geom) for geom in names[finger]}
            for finger in ("left_finger", "right_finger")
        )

    def _collision_geoms(self, name: str) -> NDArray[np.intp]:
        if name not in self._geoms:
            self._geoms[name] = self._find_collision_geoms(name)
        return self._geoms[name]

    def _find_collision_geoms(self, name: str) -> NDArray[np.intp]:
        model = self._model
        if name in self._env.obj_body_id:
            root = self._env.obj_body_id[name]
        else:
            root = model.site_bodyid[self._env.sim.model.site_name2id(name)]
        bodies = {root}
        for body in range(root + 1, model.nbody):  # a child comes after its parent
            if model.body_parentid[body] in bodies:
                bodies.add(body)
        collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        return np.flatnonzero(collides & np.isin(model.geom_bodyid, list(bodies)))
