"""The simulator: one live task, reset to any episode of it, stepped, observed and rendered on request.

Contract: qpos, qvel, proprioception, images and success equal stock LIBERO's, bit for bit.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.clock import ObservationClock
from harness.sim.scene import Scene, replay_resets
from harness.sim.scene_view import SceneView
from harness.sim.stack import SUBSTEPS, mujoco, robosuite_macros, transform_utils
from harness.sim.stepper import Stepper
from tasks import init_states
from tasks.demonstrations import read_demonstration_start
from tasks.fixture_poses import ResetPoint, TaskResets, first_reset, shipped_table
from tasks.interface import ACTION_DIM, CONTROL_HZ, EpisodeSpec, Official, Recorded, Sampled, TaskSpec
from tasks.protocols import Protocol

_DIVERGED = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{kind}")) for kind in ("QPOS", "QVEL", "QACC")]


class SimulatorError(RuntimeError):
    """The simulation cannot be set up as asked, or left the realm of finite numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimulatorState:
    """A full physical state between control steps: float64, copied."""

    time_s: float
    qpos: NDArray[np.float64]
    qvel: NDArray[np.float64]
    site_alpha: NDArray[np.float32]
    """(nsite,) opacity of each site; a lit stove burner is one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledState:
    """What robosuite's observables sampled last: the kinematics of one substep, and the images' scene."""

    qpos: NDArray[np.float64]
    """(nq,) the positions whose kinematics the images show."""
    sites_rgba: NDArray[np.float32]
    hand: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    """Position of the grip site (3,) [m], rotation of the hand (4,) wxyz, positions of the fingers (2,) [m]."""

    @property
    def proprio(self) -> NDArray[np.float32]:
        """(8,); see `tasks.interface`."""
        position, rotation, fingers = self.hand
        angles = transform_utils.quat2axisangle(transform_utils.convert_quat(rotation, to="xyzw"))
        return np.concatenate([position, angles, fingers]).astype(np.float32)


@dataclass(slots=True, kw_only=True)
class SimulatorTimes:
    """Wall time spent since the last `reset` [s]."""

    build_s: float = 0.0
    reset_s: float = 0.0
    physics_s: float = 0.0
    render_s: float = 0.0


class Simulator:
    """One task of LIBERO under one protocol.

    Args:
        protocol: fixes resets, settling and image size.
        task: what to build.
        recorded_xml: the model of the demonstration to be replayed; empty for the task's own.
    """

    def __init__(self, task: TaskSpec, protocol: Protocol, recorded_xml: str = "") -> None:
        started = time.perf_counter()
        self.task = task
        self.protocol = protocol
        self.recorded_xml = recorded_xml
        self.scene = Scene(task, recorded_xml)
        self._env: Any = self.scene.env
        self._model = self.scene.model
        self._data = self.scene.data
        self._warnings = self._data.warning.number
        names = self._env.sim.model
        names.get_joint_qpos_addr = functools.cache(names.get_joint_qpos_addr)  # LIBERO looks joints up in every step
        self._stepper = Stepper(self._env, self._model, self._data)
        self._view: SceneView | None = None
        self._resets: dict[int, TaskResets] = {}
        self._init_states: NDArray[np.float64] | None = None
        self._clock = ObservationClock(
            timestep_s=robosuite_macros.SIMULATION_TIMESTEP, sampling_period_s=1.0 / CONTROL_HZ
        )
        robot = self._env.robots[0]
        eef_body = self._env.sim.model.body_name2id(robot.robot_model.eef_name)
        data, fingers = self._data, list(robot._ref_gripper_joint_pos_indexes)
        self._hand = data.site_xpos[robot.eef_site_id], data.xquat[eef_body], data.qpos[fingers[0] : fingers[-1] + 1]
        assert len(self._hand[-1]) == len(fingers), f"the fingers' positions are not consecutive: {fingers}"
        self._qpos, self._sites_rgba = data.qpos, self._model.site_rgba
        self.sampled: SampledState
        self.table_matches = True
        """Whether the shipped fixture-pose table was made from this very model; else resets are replayed."""
        self.times = SimulatorTimes(build_s=time.perf_counter() - started)

    # --- resetting ---------------------------------------------------------------------------------

    def reset(self, spec: EpisodeSpec) -> None:
        """Bring the simulation to the start of an episode, settled.

        Raises:
            SimulatorError: the episode's init state does not fit the task's model.
        """
        started = time.perf_counter()
        self.times = SimulatorTimes(build_s=self.times.build_s)
        match spec.init:
            case Official(index=index):
                self._stock_reset(self._reset_point(index))
                self._set_state(self._official_state(index))
            case Sampled(seed=seed, spread=spread):
                with self.scene.widened(spread):
                    self._stock_reset(first_reset(seed))
            case Recorded():
                self._recorded_reset(spec.init)
        if not isinstance(spec.init, Recorded):
            self._settle()
        self.times.reset_s = time.perf_counter() - started

    def _reset_point(self, episode: int) -> ResetPoint:
        """Where stock's reset for the k-th episode begins."""
        if self.protocol.reset_stream == "per_episode":
            return first_reset(self.protocol.reset_seed + episode)
        return self._sequence(episode + 1).points[episode]

    def _sequence(self, count: int) -> TaskResets:
        """At least `count` resets in sequence: the shipped table, or replayed where it does not hold."""
        seed = self.protocol.reset_seed
        known = self._resets.get(seed)
        if known is None:
            known = shipped_table().resets(self.task, seed)
            if known is not None and not self._table_holds(known):
                known, self.table_matches = None, False
        if known is None or len(known.points) < count:
            known = replay_resets(self.scene, seed, max(count, self.protocol.episodes_per_task))
        self._resets[seed] = known
        return known

    def _table_holds(self, entry: TaskResets) -> bool:
        """Whether the table was made from this very model."""
        return entry.model_sha256 == self.scene.model_sha256

    def _stock_reset(self, point: ResetPoint) -> None:
        self.scene.reset_in_sequence(point.random_state(), point.loads)
        self._stepper.reset()
        known = self._resets.get(point.seed)
        if known is not None and point in known.points:
            expected = known.poses[known.points.index(point)]
            if not np.array_equal(expected, self.scene.fixture_poses()):
                raise SimulatorError(
                    f"{self.task}: the reset put the fixtures elsewhere than the table says, by up to "
                    f"{np.abs(expected - self.scene.fixture_poses()).max():.2g}. numpy's legacy generator or LIBERO's "
                    "samplers have changed; run scripts/make_fixture_poses.py and report this."
                )
        self._clock.reset()
        self._clock.tick(force=True)
        self._sample()

    def _official_state(self, index: int) -> NDArray[np.float64]:
        if self._init_states is None:
            self._init_states = init_states.read(self.task.init_states_file)
        return self._init_states[index]

    def _set_state(self, state: NDArray[np.float64]) -> None:
        """LIBERO's `set_init_state`: `state` is (1 + nq + nv,)."""
        expected = 1 + self._model.nq + self._model.nv
        if state.shape != (expected,):
            raise SimulatorError(
                f"{self.task}: an init state has {state.size} numbers, the model needs {expected} (time, qpos, qvel). "
                "The init states and the BDDL files come from different LIBERO versions."
            )
        self._data.time = state[0]
        self._data.qpos[:] = state[1 : 1 + self._model.nq]
        self._data.qvel[:] = state[1 + self._model.nq :]
        mujoco.mj_forward(self._model, self._data)
        self.success()
        self._env._post_process()
        self._clock.tick(force=True)
        self._sample()

    def _recorded_reset(self, init: Recorded) -> None:
        """As robosuite plays a demonstration back: data zeroed, first state set."""
        start = read_demonstration_start(init.file, init.demo)
        assert start.model_xml == self.recorded_xml, "a demonstration is replayed in its own model"
        self.scene.reset_recorded()
        self._stepper.reset()
        self._clock.reset()
        self._set_state(start.state)

    def _settle(self) -> None:
        action = np.zeros(ACTION_DIM)
        action[-1] = self.protocol.settle_gripper
        for _ in range(self.protocol.settle_steps):
            self._advance(action)

    # --- stepping ----------------------------------------------------------------------------------

    def step(self, action: NDArray[np.float64]) -> bool:
        """One control step with `action` (7,) float64; whether the goal holds after it.

        Raises:
            SimulatorError: the physics diverged.
        """
        started = time.perf_counter()
        try:
            self._advance(action)
            diverged = self._has_diverged()
        except np.linalg.LinAlgError:  # the controller inverts a matrix that has no inverse any more
            diverged = True
        if diverged:
            raise SimulatorError(
                f"{self.task}: the physics diverged (infinite or huge values) and MuJoCo reset itself; "
                "the episode is worth nothing. Look at the actions in the steps before."
            )
        success = self.success()
        self.times.physics_s += time.perf_counter() - started
        return success

    def _has_diverged(self) -> bool:
        return any(self._warnings.item(warning) for warning in _DIVERGED)

    def _advance(self, action: NDArray[np.float64]) -> None:
        self._stepper.advance(action, self._clock.sampling_substep(SUBSTEPS), self._sample)
        self._env._post_process()

    def success(self) -> bool:
        """Whether the goal predicate holds now."""
        return bool(self._env._check_success())

    def _sample(self, qpos_before: NDArray[np.float64] | None = None) -> None:
        """Take what the observables sample now.

        Args:
            qpos_before: the positions before this substep's integration, whose kinematics `mj_step` leaves
                behind in site and body poses; None after a plain forward pass.
        """
        position, rotation, fingers = self._hand
        self.sampled = SampledState(
            qpos=self._qpos.copy() if qpos_before is None else qpos_before,
            sites_rgba=self._sites_rgba.copy(),
            hand=(position.copy(), rotation.copy(), fingers.copy()),
        )

    # --- observing ---------------------------------------------------------------------------------

    def images(self, cameras: tuple[str, ...]) -> NDArray[np.uint8]:
        """The cameras at the sampled substep, as OpenGL gives them: uint8 (cameras, H, W, 3)."""
        started = time.perf_counter()
        if not cameras:
            return np.empty((0, self.protocol.render_size_px, self.protocol.render_size_px, 3), dtype=np.uint8)
        view = self.prepare_images()
        ready = time.perf_counter()
        images = view.images(cameras, self.sampled.qpos, self.sampled.sites_rgba)  # a burner may be lit since
        self.times.build_s += ready - started
        self.times.render_s += time.perf_counter() - ready
        return images

    def prepare_images(self) -> SceneView:
        """Make the GL context, which the first image would otherwise do.

        Raises:
            GlError: there can be none; the message says what to install.
        """
        if self._view is None:
            self._view = SceneView(self.scene, self.protocol.render_size_px)
        return self._view

    def state(self) -> SimulatorState:
        """The physical state now."""
        return SimulatorState(
            time_s=float(self._data.time),
            qpos=self._data.qpos.copy(),
            qvel=self._data.qvel.copy(),
            site_alpha=self._model.site_rgba[:, 3].copy(),
        )

    def close(self) -> None:
        """Release the model, the data and the GL context."""
        if self._view is not None:
            self._view.close()
            self._view = None
        self.scene.close()
