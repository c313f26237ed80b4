"""LIBERO as a gymnasium environment, on the simulator the evaluation runs on.

Observations are laid out as LeRobot's environments do: `pixels/image` is the agent's camera, `pixels/image2` the wrist's,
`agent_pos` the proprioception.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from harness.sim.gl import GlError, choose_backend, set_environment
from tasks.interface import ACTION_DIM, CAMERAS, CONTROL_HZ, EpisodeSpec, ImageConvention, Official
from tasks.plan import make_episode
from tasks.protocols import find_protocol
from tasks.suites import load_suite

PROPRIO_BOUND = np.array([3.0] * 3 + [6.3] * 3 + [0.1] * 2, dtype=np.float32)
"""Nothing the arm can do leaves it: eef position [m], axis-angle [rad] (robosuite's angle goes to 2π), fingers [m]."""
IMAGE_NAMES = {"agentview": "image", "robot0_eye_in_hand": "image2"}


class LiberoEnvironment(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """One LIBERO task. An episode is an official init state, settled as the protocol says.

    Action: float32 (7,) in [-1, 1]; see `tasks.interface`. Reward: 1 at the step that reaches the goal, which terminates
    the episode, else 0. The protocol's horizon truncates it. `info` has `is_success`, `episode_id` and `task` (the prompt).

    Args:
        suite: such as libero_spatial.
        task: index in the suite.
        protocol: settling, horizon, image size and convention, fixture poses.
        cameras: rendered at every step; () for none, which needs no OpenGL and is much faster.
        image_convention: None: the protocol's.
        render_mode: `rgb_array`, or None. `render()` shows the agent's camera in the true view.

    Raises:
        ValueError: an unknown suite, task, protocol, camera or render mode.
        GlError: cameras are asked for and cannot be drawn.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  (as gymnasium's)

    def __init__(
        self,
        *,
        suite: str,
        task: int = 0,
        protocol: str = "openvla",
        cameras: tuple[str, ...] = CAMERAS,
        image_convention: ImageConvention | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._protocol = find_protocol(protocol)
        tasks = load_suite(suite)
        if not 0 <= task < len(tasks):
            raise ValueError(f"{suite} has tasks 0 to {len(tasks) - 1}, got task={task}")
        unknown = [camera for camera in cameras if camera not in CAMERAS]
        if unknown:
            raise ValueError(f"unknown camera {unknown[0]!r}; valid cameras: {', '.join(CAMERAS)}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"unknown render_mode {render_mode!r}; expected None or 'rgb_array'")
        self.render_mode = render_mode
        self._task = tasks[task]
        self._cameras = tuple(cameras)
        self._convention: ImageConvention = image_convention or self._protocol.image_convention
        self.task_description = self._protocol.instruction(self._task)
        """The prompt."""
        size = self._protocol.render_size_px
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        parts: dict[str, spaces.Space[Any]] = {"agent_pos": spaces.Box(-PROPRIO_BOUND, PROPRIO_BOUND)}
        if cameras:
            parts["pixels"] = spaces.Dict({IMAGE_NAMES[camera]: image for camera in cameras})
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self._steps = -1
        self._over = True
        self._spec: EpisodeSpec
        self._simulator = self._make_simulator(bool(cameras) or render_mode is not None)

    def _make_simulator(self, drawing: bool) -> Any:
        """The simulator, with a GL context if it is to draw.

        Raises:
            GlError: there is none.
        """
        if "robosuite" not in sys.modules:  # it reads the choice of backend when it is imported
            try:
                set_environment(choose_backend("auto")[0])
            except GlError:
                if drawing:
                    raise
                os.environ["MUJOCO_GL"] = "disable"
        elif drawing and os.environ.get("MUJOCO_GL") not in ("egl", "osmesa"):
            raise GlError(
                "robosuite was imported before this environment was made, and without a GL backend that draws off screen. "
                "Set MUJOCO_GL to egl or osmesa before, or make this environment first."
            )
        from harness.sim.simulator import Simulator  # the simulation stack, wanted when an environment is made

        simulator = Simulator(self._task, self._protocol)
        if drawing:
            simulator.prepare_images()
        return simulator

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode.

        Args:
            options: `{"episode": k}` begins the k-th official init state; else one is drawn.

        Raises:
            ValueError: there is no such init state.
            gymnasium.error.ClosedEnvironmentError: the environment is closed.
        """
        super().reset(seed=seed)
        if self._simulator is None:
            raise gymnasium.error.ClosedEnvironmentError("the environment is closed: make another")
        episode = self._episode((options or {}).get("episode"))
        self._spec = make_episode(self._task, Official(index=episode), self._protocol)
        self._over = True  # until the simulator is ready
        self._simulator.reset(self._spec)
        self._steps, self._over = 0, False
        return self._observation(), self._info(success=False)

    def _episode(self, wanted: object) -> int:
        count = self._task.num_init_states
        if wanted is None:
            return int(self.np_random.integers(count))
        if not isinstance(wanted, int | np.integer) or isinstance(wanted, bool) or not 0 <= wanted < count:
            raise ValueError(f'{self._task} has episodes 0 to {count - 1}, got options={{"episode": {wanted!r}}}')
        return int(wanted)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step of 50 ms.

        Raises:
            ValueError: the action has another shape or is not finite.
            gymnasium.error.ResetNeeded: the episode is over, or none was begun.
            SimulatorError: the physics diverged.
        """
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over or was never begun: call reset() first")
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (ACTION_DIM,) or not np.isfinite(command).all():
            raise ValueError(f"expected a finite action of shape ({ACTION_DIM},), got {action!r}")
        success = self._simulator.step(command)
        self._steps += 1
        truncated = not success and self._steps >= self._protocol.horizon(self._task)
        self._over = success or truncated
        return self._observation(), float(success), success, truncated, self._info(success=success)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """uint8 (H, W, 3): the agent's camera, true view; None without a render mode.

        Raises:
            gymnasium.error.ResetNeeded: there is nothing to see before the first `reset`, or after `close`.
        """
        if self.render_mode is None:
            return None
        if self._simulator is None or self._steps < 0:
            raise gymnasium.error.ResetNeeded("nothing to see: call reset() first")
        from harness.sim.renderer import convert

        return np.ascontiguousarray(convert(self._simulator.images(("agentview",))[0], "true_view"))

    def close(self) -> None:
        """Release the simulator."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator, self._over = None, True

    def _observation(self) -> dict[str, Any]:
        from harness.sim.renderer import convert

        observation: dict[str, Any] = {"agent_pos": self._simulator.sampled.proprio.copy()}
        if self._cameras:
            images = self._simulator.images(self._cameras)
            observation["pixels"] = {
                IMAGE_NAMES[camera]: np.ascontiguousarray(convert(image, self._convention))
                for camera, image in zip(self._cameras, images, strict=True)
            }
        return observation

    def _info(self, *, success: bool) -> dict[str, Any]:
        return {"is_success": success, "episode_id": self._spec.episode_id, "task": self.task_description}
