"""One LIBERO task, compiled once and kept: soft resets that equal stock's hard ones bit for bit.

Stock `reset()` rebuilds the model from XML (0.5 to 4 s). What a rebuild really changes is little: the
model's fixture poses and site colours return to the compiled ones, the gripper's commanded opening to
zero, the stove's on/off flag to its default, and one more set of initializers for open and closed
joints is appended to a list that is never cleared. All of it is reproduced here without rebuilding.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from harness.sim.contacts import ContactCheck
from harness.sim.model_cache import Texture, compile_model, load_model
from harness.sim.stack import RandomizationError, bddl_base_domain, binding_utils, mujoco, robosuite
from tasks.bddl import read_problem
from tasks.fixture_poses import ResetPoint, TaskResets, mersenne_state
from tasks.interface import CAMERAS, CONTROL_HZ, TaskSpec


@contextlib.contextmanager
def numpy_global_generator(state: np.random.RandomState) -> Iterator[np.random.RandomState]:
    """Let LIBERO's samplers, which use numpy's global generator, draw from `state`.

    The generator is advanced by what was drawn; the global one is put back as it was.
    """
    before = np.random.get_state()
    np.random.set_state(state.get_state())
    try:
        yield state
    finally:
        state.set_state(np.random.get_state())
        np.random.set_state(before)


def _remembering(problem: Any) -> Any:
    """LIBERO's problem class, its model from the cache, keeping the fields that a reset changes as they were compiled."""

    class Remembering(problem):  # type: ignore[misc]
        def _initialize_sim(self, xml_string: str | None = None) -> None:
            # A recorded model is met once: it is not worth an entry.
            loaded = compile_model(xml_string) if xml_string else load_model(self.model.get_xml())
            self.textures = loaded.textures
            self.sim = binding_utils.MjSim(loaded.model)
            self.sim.forward()
            self.initialize_time(self.control_freq)
            model = loaded.model
            model.vis.global_.bvactive = 0  # for drawing bounding volumes: half a megabyte cleared in every substep
            self.check_contact = ContactCheck(self.sim)
            self.compiled = {field: getattr(model, field).copy() for field in ("body_pos", "body_quat", "site_rgba")}

    Remembering.__name__ = problem.__name__  # LIBERO compares it with the BDDL's problem
    return Remembering


class Scene:
    """A task's model and LIBERO environment, without cameras.

    Args:
        task: what to build.
        recorded_xml: a demonstration's model, to be used instead of the task's; empty for none.
    """

    def __init__(self, task: TaskSpec, recorded_xml: str = "") -> None:
        self.task = task
        self.problem = read_problem(task.bddl_file)
        self.env: Any = self._build(task)
        if recorded_xml:
            self._load_recorded_model(recorded_xml)
        self.model = self.env.sim.model._model
        self.data = self.env.sim.data._data
        self.textures: tuple[Texture, ...] = self.env.textures
        """The pixels of those textures for which the model has stand-ins."""
        self._compiled: dict[str, NDArray[np.generic]] = self.env.compiled
        self._initializers = list(self.env.object_property_initializers)
        self._visible_sites = {
            name: copy.deepcopy(body.object_properties["vis_site_names"])
            for bodies in (self.env.fixtures_dict, self.env.objects_dict)
            for name, body in bodies.items()
        }
        self.fixtures = tuple(self.env.fixtures_dict)
        self._fixture_bodies = [self.env.obj_body_id[name] for name in self.fixtures]
        self.fixture_body_names = tuple(self.model.body(body).name for body in self._fixture_bodies)

    @staticmethod
    def _build(task: TaskSpec) -> Any:
        problem = _remembering(bddl_base_domain.TASK_MAPPING[read_problem(task.bddl_file).name])
        # The constructor samples a placement that nothing depends on; LIBERO's samplers may fail to find one.
        generator = np.random.RandomState(0)
        while True:
            with numpy_global_generator(generator), contextlib.suppress(RandomizationError):
                return problem(
                    str(task.bddl_file),
                    robots=["Panda"],
                    controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
                    gripper_types="default",
                    initialization_noise=None,
                    use_camera_obs=False,
                    has_renderer=False,
                    has_offscreen_renderer=False,
                    control_freq=CONTROL_HZ,
                    ignore_done=True,
                    hard_reset=False,
                    camera_names=list(CAMERAS),
                )

    def _load_recorded_model(self, xml: str) -> None:
        """robosuite's `reset_from_xml_string`, with the recorder's file paths turned into this machine's."""
        robosuite_root = os.path.dirname(robosuite.__file__)
        roots = {"/robosuite/models/": f"{robosuite_root}/models", "/assets/": str(self.env.custom_asset_dir)}
        self.env.close()
        self.env._initialize_sim(relocate_files(xml, roots))
        self._deterministic_reset()

    def _deterministic_reset(self) -> None:
        """robosuite's reset of a model from XML: controllers anew, nothing sampled."""
        self.env.deterministic_reset = True
        self.env.reset()
        self.env.deterministic_reset = False

    def reset_recorded(self) -> None:
        """As robosuite does in a fresh environment before it plays a demonstration back: reset, then zero all data."""
        self._restore_compiled()
        self._deterministic_reset()
        mujoco.mj_resetData(self.model, self.data)

    def _restore_compiled(self) -> None:
        """What a rebuild would put back: model fields, the stove's flag, the gripper's commanded opening."""
        for field, values in self._compiled.items():
            getattr(self.model, field)[:] = values
        for name, sites in self._visible_sites.items():
            self.env.get_object(name).object_properties["vis_site_names"] = copy.deepcopy(sites)
        for robot in self.env.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)

    @property
    def model_sha256(self) -> str:
        """Hash of what the fixture-pose table depends on: the model's XML (folders left out) and the BDDL file."""
        xml = self.env.model.get_xml()
        for folder in (str(self.env.custom_asset_dir), os.path.dirname(robosuite.__file__)):
            xml = xml.replace(folder, "")
        return hashlib.sha256(xml.encode() + self.task.bddl_file.read_bytes()).hexdigest()

    def soft_reset(self, generator: np.random.RandomState, loads: int) -> None:
        """One `reset()` of stock LIBERO, drawing from `generator`.

        Args:
            generator: numpy's global generator as stock would find it; advanced by what the reset draws.
            loads: times stock would have built the model by now, this reset included.

        Raises:
            RandomizationError: LIBERO's samplers found no placement; stock then resets again.
        """
        env = self.env
        self._restore_compiled()
        env.object_property_initializers = self._initializers * loads
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)  # stock: after compiling
        mujoco.mj_forward(self.model, self.data)  # stock: in the constructor of the render context
        env.cur_time = 0
        with numpy_global_generator(generator):
            env._reset_internal()
        mujoco.mj_forward(self.model, self.data)
        env.visualize(vis_settings={name: False for name in env._visualizations})

    def reset_in_sequence(self, generator: np.random.RandomState, loads: int) -> int:
        """As `soft_reset`, again and again until a placement is found; the `loads` of the reset that succeeded."""
        while True:
            try:
                self.soft_reset(generator, loads)
                return loads
            except RandomizationError:
                loads += 1

    @contextlib.contextmanager
    def widened(self, spread: float) -> Iterator[None]:
        """Within, resets put things on tables in regions `spread` times as wide as LIBERO's, around the same middles.

        Fixtures, and what stands on them or on other things, keep theirs.
        """
        if spread == 1.0:  # to the last bit
            yield
            return
        samplers = [
            sampler
            for sampler in self.env.placement_initializer.samplers.values()
            if all(thing.name in self.env.objects_dict for thing in sampler.mujoco_objects)
        ]
        usual = [(sampler.x_ranges, sampler.y_ranges) for sampler in samplers]
        for sampler in samplers:
            (thing,) = sampler.mujoco_objects
            inset = thing.horizontal_radius if sampler.ensure_object_boundary_in_range else 0.0
            sampler.x_ranges, sampler.y_ranges = (
                [_widened(low, high, inset, spread) for low, high in ranges]
                for ranges in (sampler.x_ranges, sampler.y_ranges)
            )
        try:
            yield
        finally:
            for sampler, (x_ranges, y_ranges) in zip(samplers, usual, strict=True):
                sampler.x_ranges, sampler.y_ranges = x_ranges, y_ranges

    def fixture_poses(self) -> NDArray[np.float64]:
        """(fixtures, 7): position in world [m] and quaternion wxyz of each fixture's root body, now."""
        return np.concatenate(
            [self.model.body_pos[self._fixture_bodies], self.model.body_quat[self._fixture_bodies]], axis=1
        ).reshape(len(self.fixtures), 7)

    def place_fixtures(self, poses: NDArray[np.float64]) -> None:
        """Put the fixtures where `fixture_poses` found them."""
        self.model.body_pos[self._fixture_bodies] = poses[:, :3]
        self.model.body_quat[self._fixture_bodies] = poses[:, 3:]

    def close(self) -> None:
        """Release the simulation."""
        self.env.close()


def _widened(low: float, high: float, inset: float, spread: float) -> tuple[float, float]:
    """The range that, `inset` taken off both ends as LIBERO's samplers do, is `spread` times as wide as this one is then.

    Where LIBERO's are narrower than two insets, the ends are exchanged, and what is left between them is what is drawn from.
    """
    middle, half = (low + high) / 2, spread * ((high - low) / 2 - inset) + inset
    return middle - half, middle + half


def relocate_files(xml: str, roots: dict[str, str]) -> str:
    """The XML with every `file` below this machine's folders.

    Args:
        roots: a folder in the recorded paths → where it lies here; the first that a path contains counts.
    """
    tree = ElementTree.fromstring(xml)
    for element in tree.iter():
        path = element.get("file", "")
        for folder, root in roots.items():
            if folder in path:
                element.set("file", f"{root}/{path.rpartition(folder)[2]}")
                break
    return ElementTree.tostring(tree, encoding="unicode")


def _stream_position(generator: np.random.RandomState, seed: int) -> tuple[int, bool]:
    """(32-bit words used since seeding, whether a normal is cached)."""
    key, position, gauss_cached = mersenne_state(generator)
    other = np.random.RandomState(seed)
    words = 0
    while not np.array_equal(mersenne_state(other)[0], key):
        other._bit_generator.random_raw(624, output=False)  # type: ignore[attr-defined]
        words += 624
    return words + position - mersenne_state(other)[1], gauss_cached


def replay_resets(scene: Scene, seed: int, count: int) -> TaskResets:
    """The first `count` resets after seeding with `seed`, as the usual evaluation loop makes them."""
    generator = np.random.RandomState(seed)
    points, poses = [], []
    loads = 1
    for _ in range(count):
        while True:
            loads += 1
            words, gauss_cached = _stream_position(generator, seed)
            try:
                scene.soft_reset(generator, loads)
                break
            except RandomizationError:
                continue
        points.append(ResetPoint(seed=seed, words=words, gauss_cached=gauss_cached, loads=loads))
        poses.append(scene.fixture_poses())
    return TaskResets(
        model_sha256=scene.model_sha256, points=tuple(points), fixtures=scene.fixtures, poses=np.stack(poses)
    )
