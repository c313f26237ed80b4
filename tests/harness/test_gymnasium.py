from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import vla_vggt
from harness.policies.simple import RandomPolicy
from tasks.suites import SUITES
from tests.examples import observation
from tests.harness.test_engine import run, settings

ROOT = Path(__file__).parents[2]
ID = "vla_vggt/libero_spatial-v0"


@pytest.fixture(scope="module")
def blind() -> Iterator[gymnasium.Env[Any, Any]]:
    env = gymnasium.make(ID, task=3, cameras=())
    yield env
    env.close()


def test_every_suite_is_registered_and_registering_is_light() -> None:
    assert vla_vggt.__doc__
    assert {f"vla_vggt/{suite}-v0" for suite in SUITES} <= set(gymnasium.registry)
    code = "import sys, vla_vggt; print({'torch', 'mujoco', 'robosuite', 'libero'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.sim
def test_gymnasiums_checker_has_nothing_to_say() -> None:
    env = gymnasium.make(ID, task=3, render_mode="rgb_array")
    with pytest.raises(gymnasium.error.ResetNeeded, match="nothing to see"):
        env.unwrapped.render()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_env(env.unwrapped)
    assert env.observation_space["pixels"]["image"].shape == (256, 256, 3)  # type: ignore[index]
    first, info = env.reset(options={"episode": 7})
    assert info["episode_id"] == "libero_spatial/03/07/r0"
    assert (
        info["task"]
        == env.unwrapped.task_description
        == "pick up the black bowl on the cookie box and place it on the plate"
    )  # type: ignore[attr-defined]
    seen = first["pixels"]["image"]
    true_view = env.render()
    assert true_view is not None
    np.testing.assert_array_equal(true_view, seen[:, ::-1], "the protocol's images are rotated by 180°: mirrored")
    env.close()


@pytest.mark.sim
def test_it_is_the_simulator_of_the_evaluation(tmp_path: Path, blind: gymnasium.Env[Any, Any]) -> None:
    """The same actions lead to the same final state, bit for bit, as `vla-eval` records it."""
    from tasks.plan import plan_official
    from tasks.protocols import openvla
    from tasks.suites import select_tasks

    spec = plan_official(select_tasks("libero_spatial", ["3"]), openvla(), episodes=2).episodes[1]
    end, (record,) = run(RandomPolicy(seed=1), tmp_path, specs=[spec])
    assert end.reason == "completed"

    _, info = blind.reset(options={"episode": 1})
    assert info["episode_id"] == spec.episode_id
    policy, steps = RandomPolicy(seed=1), 0
    truncated = False
    while not truncated:
        if steps % 8 == 0:
            chunk = policy.act([observation(spec.episode_id, steps)])[0].actions
        _, reward, terminated, truncated, info = blind.unwrapped.step(chunk[steps % 8])
        assert (reward, terminated, info["is_success"]) == (0.0, False, False)
        steps += 1
    assert steps == record.steps == 220
    from tasks.interface import state_sha256

    state = blind.unwrapped._simulator.state()  # type: ignore[attr-defined]
    assert state_sha256(np.concatenate([[state.time_s], state.qpos, state.qvel])) == record.final_state_sha256
    with pytest.raises(gymnasium.error.ResetNeeded, match="the episode is over"):
        blind.unwrapped.step(np.zeros(7, np.float32))


@pytest.mark.sim
def test_success_terminates_with_reward_one(tmp_path: Path, blind: gymnasium.Env[Any, Any]) -> None:
    from harness.sim.episode import EpisodeRunner
    from results.trace import read_trace, trace_path
    from tasks.interface import Official
    from tasks.plan import make_episode
    from tasks.protocols import openvla
    from tasks.suites import load_suite

    spec = make_episode(load_suite("libero_spatial")[3], Official(index=0), openvla())
    runner = EpisodeRunner(settings(tmp_path, worker_policy="expert"))
    record = runner.run(spec, 1, lambda _: pytest.fail("the expert makes no queries"))
    runner.close()
    blind.reset(options={"episode": 0})
    ends = [blind.unwrapped.step(action)[1:4] for action in read_trace(tmp_path / trace_path(spec.episode_id)).actions]
    assert ends == [(0.0, False, False)] * (record.steps - 1) + [(1.0, True, False)]


@pytest.mark.sim
def test_two_environments_in_one_process_draw_their_own_pictures() -> None:
    envs = [gymnasium.make(ID, task=task, cameras=("agentview",)) for task in (0, 8)]
    alone = [env.reset(options={"episode": 0})[0]["pixels"]["image"] for env in envs]
    again = [env.reset(options={"episode": 0})[0]["pixels"]["image"] for env in reversed(envs)][::-1]
    np.testing.assert_array_equal(alone, again)
    assert (alone[0] != alone[1]).any()
    envs.pop().close()
    np.testing.assert_array_equal(envs[0].reset(options={"episode": 0})[0]["pixels"]["image"], alone[0])
    dropped = gymnasium.make(ID, task=8, cameras=("agentview",))
    dropped.reset(options={"episode": 0})
    del dropped  # without close, as in a notebook
    gc.collect()
    np.testing.assert_array_equal(envs[0].reset(options={"episode": 0})[0]["pixels"]["image"], alone[0])
    envs[0].close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        envs[0].unwrapped.reset()


@pytest.mark.sim
def test_the_backend_is_found_though_others_came_first() -> None:
    """mujoco imported before, an environment without cameras made before, CUDA_VISIBLE_DEVICES pointing nowhere."""
    code = (
        "import gymnasium, mujoco, vla_vggt\n"
        f"gymnasium.make({ID!r}, cameras=()).close()\n"
        f"env = gymnasium.make({ID!r}, task=1)\n"
        "print(env.reset(options={'episode': 0})[0]['pixels']['image'].std() > 10)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    environment["CUDA_VISIBLE_DEVICES"] = "7"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.sim
@pytest.mark.parametrize(
    ("action", "message"),
    [(np.zeros(6), r"expected a finite action of shape \(7,\)"), (np.full(7, np.nan), "expected a finite action")],
)
def test_wrong_actions(blind: gymnasium.Env[Any, Any], action: np.ndarray, message: str) -> None:
    blind.reset(options={"episode": 0})
    with pytest.raises(ValueError, match=message):
        blind.unwrapped.step(action)


@pytest.mark.sim
@pytest.mark.parametrize("episode", [50, -1, "0", True, 1.0])
def test_wrong_episodes(blind: gymnasium.Env[Any, Any], episode: object) -> None:
    with pytest.raises(ValueError, match="has episodes 0 to 49"):
        blind.unwrapped.reset(options={"episode": episode})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": 10}, "libero_spatial has tasks 0 to 9, got task=10"),
        ({"protocol": "mine"}, "unknown protocol 'mine'"),
        ({"cameras": ("frontview",)}, "unknown camera 'frontview'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make(ID, **arguments)
