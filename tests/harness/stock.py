"""Stock LIBERO driven the usual way: the definition the fast simulator is held to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from harness.sim.simulator import Simulator
from harness.sim.stack import transform_utils
from tasks import init_states
from tasks.interface import CAMERAS, TaskSpec
from tasks.protocols import Protocol


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What an evaluation loop gets to see after one control step."""

    state: NDArray[np.float64]
    """(1 + nq + nv,)"""
    proprio: NDArray[np.float32]
    images: NDArray[np.uint8]
    """(2, H, W, 3) as OpenGL gives them, or empty."""
    success: bool


def stock_environment(task: TaskSpec, *, size_px: int = 0) -> Any:
    """LIBERO's own environment: `OffScreenRenderEnv` with both cameras, or without any for `size_px` 0.

    It is imported here because `harness.sim.stack`, imported above, must come first: it keeps robosuite quiet.
    """
    from libero.libero.envs.env_wrapper import ControlEnv, OffScreenRenderEnv

    bddl_file = str(task.bddl_file)
    if size_px:
        return OffScreenRenderEnv(bddl_file_name=bddl_file, camera_heights=size_px, camera_widths=size_px)
    return ControlEnv(bddl_file_name=bddl_file, use_camera_obs=False, has_offscreen_renderer=False)


class StockLoop:
    """`OffScreenRenderEnv` as OpenVLA's evaluation uses it: seeded once, one hard reset per episode."""

    def __init__(self, task: TaskSpec, protocol: Protocol) -> None:
        self._protocol = protocol
        self._states = init_states.read(task.init_states_file)
        self.env: Any = stock_environment(task, size_px=protocol.render_size_px)
        self.env.seed(protocol.reset_seed)

    def reset(self) -> None:
        """The next episode's reset."""
        self._select_context()
        self.env.reset()

    def _select_context(self) -> None:
        """robosuite draws, and frees what it drew with, in whichever GL context is current; here that may be the simulator's."""
        context = self.env.sim._render_context_offscreen
        if context is not None:
            context.gl_ctx.make_current()

    def begin(self, index: int) -> Seen:
        """Set init state `index` and settle."""
        self._select_context()
        observation = self.env.set_init_state(self._states[index])
        action = [0.0] * 6 + [self._protocol.settle_gripper]
        for _ in range(self._protocol.settle_steps):
            observation, *_ = self.env.step(action)
        return self._seen(observation, False)

    def step(self, action: NDArray[np.float64], *, images: bool = True) -> Seen:
        """One control step. Without `images` nothing is drawn, and they are black."""
        self._select_context()
        with contextlib.nullcontext() if images else _nothing_drawn():
            observation, _, done, _ = self.env.step(action)
        return self._seen(observation, bool(done))

    def fixture_poses(self) -> NDArray[np.float64]:
        """(fixtures, 7): position and quaternion wxyz."""
        inner = self.env.env
        bodies = [inner.obj_body_id[name] for name in inner.fixtures_dict]
        model = inner.sim.model
        return np.concatenate([model.body_pos[bodies], model.body_quat[bodies]], axis=1)

    def close(self) -> None:
        self.env.close()

    def _seen(self, observation: dict[str, Any], success: bool) -> Seen:
        orientation = transform_utils.quat2axisangle(observation["robot0_eef_quat"].copy())
        return Seen(
            state=self.env.get_sim_state(),
            proprio=np.concatenate(
                [observation["robot0_eef_pos"], orientation, observation["robot0_gripper_qpos"]]
            ).astype(np.float32),
            images=np.stack([observation[f"{camera}_image"] for camera in CAMERAS]),
            success=success,
        )


@contextlib.contextmanager
def _nothing_drawn() -> Iterator[None]:
    """robosuite's cameras give black images meanwhile."""
    from robosuite.utils.binding_utils import MjSim

    def black(_: MjSim, *, width: int, height: int, **__: Any) -> NDArray[np.uint8]:
        return np.zeros((height, width, 3), dtype=np.uint8)

    with patch.object(MjSim, "render", black):
        yield


def seen(simulator: Simulator, success: bool, *, images: bool) -> Seen:
    """The fast simulator's view, for comparison."""
    state = simulator.state()
    return Seen(
        state=np.concatenate([[state.time_s], state.qpos, state.qvel]),
        proprio=simulator.sampled.proprio,
        images=simulator.images(CAMERAS) if images else np.empty(0, dtype=np.uint8),
        success=success,
    )


def differences(stock: Seen, fast: Seen) -> list[str]:
    """What is not equal, bit for bit; images only where the fast one has any."""
    pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
        "state": (stock.state, fast.state),
        "proprio": (stock.proprio, fast.proprio),
    }
    if fast.images.size:
        pairs |= {camera: (stock.images[i], fast.images[i]) for i, camera in enumerate(CAMERAS)}
    unequal = [name for name, (a, b) in pairs.items() if not np.array_equal(a, b)]
    return unequal + (["success"] if stock.success != fast.success else [])


def contact_seeking_actions(steps: int, seed: int) -> NDArray[np.float64]:
    """(steps, 7): a drifting hand that presses down, turns, and opens and closes; some entries beyond the range."""
    generator = np.random.default_rng(seed)
    actions = np.cumsum(generator.normal(scale=0.25, size=(steps, 7)), axis=0)
    actions = 1.2 * np.sin(actions)
    actions[:, 2] = np.where(np.arange(steps) % 40 < 30, -0.9, 0.4)
    actions[:, 6] = np.sign(np.sin(np.arange(steps) / 9))
    return actions


def robot_contacts(simulator: Simulator) -> int:
    """Contacts between the robot and anything else, now."""
    model, data = simulator.scene.model, simulator.scene.data
    robot = {i for i in range(model.nbody) if model.body(i).name.startswith(("robot0", "gripper0"))}
    pairs = [{int(model.geom_bodyid[c.geom1]), int(model.geom_bodyid[c.geom2])} for c in data.contact[: data.ncon]]
    return sum(1 for pair in pairs if len(pair & robot) == 1)
