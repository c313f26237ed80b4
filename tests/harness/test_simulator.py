"""The simulator's own promises; its equality with stock is in test_equals_stock.py."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import init_states
from tasks.interface import Official, Sampled
from tasks.plan import make_episode
from tasks.protocols import libero, openvla
from tasks.suites import load_suite
from tests.harness.test_engine import settings

pytestmark = pytest.mark.sim
TASK = load_suite("libero_object")[0]


@pytest.fixture(scope="module")
def simulator() -> Iterator[object]:
    from harness.sim.simulator import Simulator

    simulator = Simulator(TASK, openvla())
    yield simulator
    simulator.close()


def test_diverging_physics_are_an_error(simulator: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.sim.simulator import Simulator, SimulatorError

    assert isinstance(simulator, Simulator)
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log there
    simulator.reset(make_episode(TASK, Official(index=0), openvla()))
    simulator.scene.data.qvel[10] = 1e12
    with pytest.raises(SimulatorError, match=r"libero_object/00: the physics diverged"):
        simulator.step(np.zeros(7))
    simulator.reset(make_episode(TASK, Official(index=0), openvla()))
    simulator.step(np.zeros(7))


def test_an_init_state_of_another_model_is_refused(simulator: object, tmp_path: Path) -> None:
    from harness.sim.simulator import Simulator, SimulatorError

    file = tmp_path / "short.pruned_init.npz"
    np.savez_compressed(file, states=np.zeros((50, 92)))
    wrong = Simulator(dataclasses.replace(TASK, init_states_file=file), openvla())
    with pytest.raises(SimulatorError, match=r"an init state has 92 numbers, the model needs 110 \(time, qpos, qvel\)"):
        wrong.reset(make_episode(wrong.task, Official(index=0), openvla()))
    wrong.close()


def test_a_sampled_start_depends_on_its_seed_alone(simulator: object) -> None:
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    starts = []
    for seed in (4, 5, 4):
        simulator.reset(make_episode(TASK, Sampled(seed=seed), openvla()))
        starts.append(simulator.state().qpos.tobytes())
        simulator.step(np.ones(7))
    assert starts[0] == starts[2] != starts[1]


def test_things_on_tables_are_spread_around_where_libero_puts_them() -> None:
    from harness.sim.simulator import Simulator

    task = load_suite("libero_spatial")[2]
    simulator = Simulator(task, openvla())

    def reset(spread: float) -> dict[str, np.ndarray]:
        simulator.reset(make_episode(task, Sampled(seed=4, spread=spread), openvla()))
        bodies = simulator.scene.env.obj_body_id
        return {name: simulator.scene.data.xpos[body].copy() for name, body in bodies.items()}

    usual, middle, wide, again = (reset(spread) for spread in (1.0, 0.0, 3.0, 1.0))
    for name in simulator.scene.fixtures:
        np.testing.assert_array_equal(wide[name], usual[name])
    for name in ("plate_1", "akita_black_bowl_1", "glazed_rim_porcelain_ramekin_1"):
        assert np.abs(usual[name] - middle[name]).max() > 0.004
        np.testing.assert_allclose(wide[name] - middle[name], 3 * (usual[name] - middle[name]), atol=0.003)
    for name, place in usual.items():
        np.testing.assert_array_equal(again[name], place)
    simulator.close()


def test_resets_leave_numpys_global_generator_alone(simulator: object) -> None:
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    np.random.seed(1)
    expected = np.random.RandomState(1).uniform(size=5)
    simulator.reset(make_episode(TASK, Official(index=2), openvla()))
    np.testing.assert_array_equal(np.random.uniform(size=5), expected)


def test_settling_is_the_protocols(simulator: object) -> None:
    """Time starts at the init state's, and settling takes 10 steps of 50 ms, or 5 under LIBERO's own protocol."""
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    begins = init_states.read(TASK.init_states_file)[0][0]
    simulator.reset(make_episode(TASK, Official(index=0), openvla()))
    assert simulator.state().time_s == pytest.approx(begins + 0.5)
    other = Simulator(TASK, libero())
    other.reset(make_episode(TASK, Official(index=0), libero()))
    assert other.state().time_s == pytest.approx(begins + 0.25)
    assert other.images(("agentview",)).shape == (1, 128, 128, 3)
    other.close()


def test_actions_beyond_the_range_act_as_clipped_ones(simulator: object) -> None:
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    ends = []
    for scale in (1.0, 3.0):
        simulator.reset(make_episode(TASK, Official(index=0), openvla()))
        for _ in range(5):
            simulator.step(np.array([scale, -scale, scale, 0, scale, 0, 1.0]))
        ends.append(simulator.state().qpos.tobytes())
    assert ends[0] == ends[1]


def test_proprioception_keeps_robosuites_axis_angle(simulator: object) -> None:
    """No antipodal flip: the angle may exceed π."""
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    simulator.reset(make_episode(TASK, Official(index=0), openvla()))
    proprio = simulator.sampled.proprio
    assert proprio.shape == (8,)
    assert proprio.dtype == np.float32
    assert 3.0 < np.linalg.norm(proprio[3:6]) < 2 * np.pi
    assert proprio[6] > 0 > proprio[7]


def test_a_runner_holds_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the next task's is loaded, that of the one before is gone."""
    from harness.sim import episode

    live: list[weakref.ref[object]] = []
    counts = []

    class Watched(episode.Simulator):
        def __init__(self, *arguments: Any) -> None:
            counts.append(sum(model() is not None for model in live))
            super().__init__(*arguments)
            live.append(weakref.ref(self.scene.model))

    monkeypatch.setattr(episode, "Simulator", Watched)
    specs = [make_episode(load_suite("libero_spatial")[index], Official(index=0), openvla()) for index in (0, 1, 0)]
    short = dataclasses.replace(
        settings(tmp_path, worker_policy="expert"), recorded_steps={spec.episode_id: 1 for spec in specs}
    )
    runner = episode.EpisodeRunner(short)
    for spec in specs:
        runner.run(spec, 1, lambda _: None)  # type: ignore[arg-type,return-value]
    runner.close()
    assert counts == [0, 0, 0]
    assert len(live) == len(specs)
    assert all(model() is None for model in live)
