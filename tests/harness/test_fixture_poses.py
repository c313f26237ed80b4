"""The shipped fixture-pose table against stock environments, and the resets it stands for."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tasks.fixture_poses import (
    FixturePoseTable,
    ResetPoint,
    TaskResets,
    first_reset,
    mersenne_state,
    shipped_table,
    write_table,
)
from tasks.interface import Official
from tasks.plan import make_episode
from tasks.protocols import PROTOCOLS, lerobot, openvla
from tasks.suites import SUITES, load_suite


def test_the_table_has_every_task_of_every_sequence_protocol() -> None:
    seeds = {p.reset_seed: p.episodes_per_task for p in PROTOCOLS.values() if p.reset_stream == "sequence"}
    table = shipped_table()
    for suite, seed in itertools.product(SUITES, seeds):
        for task in load_suite(suite):
            assert (str(task), seed) in table
    known = table.resets(load_suite("libero_goal")[3], 7)
    assert known is not None
    assert len(known.points) == seeds[7]
    assert known.poses.shape == (seeds[7], len(known.fixtures), 7)


@pytest.mark.parametrize(
    ("suite", "moving"),
    [("libero_spatial", 10), ("libero_object", 0), ("libero_goal", 10), ("libero_10", 5), ("libero_90", 63)],
)
def test_how_many_tasks_have_moving_fixtures(suite: str, moving: int) -> None:
    known = [shipped_table().resets(task, 0) for task in load_suite(suite)]
    assert sum(bool((entry.poses != entry.poses[0]).any()) for entry in known if entry) == moving


def test_every_reset_of_an_open_drawer_draws_once_more() -> None:
    """Stock never clears the list of initializers, so the draws per reset grow."""
    known = shipped_table().resets(load_suite("libero_spatial")[4], 0)
    assert known is not None
    words = np.diff([point.words for point in known.points])
    assert words[-1] > words[0] + 2 * 40


def test_a_reset_point_is_the_generator_at_that_place() -> None:
    generator = np.random.RandomState(3)
    generator.randn(7)
    generator.uniform(size=400)
    words = 0
    for candidate in range(2000):
        key, position, _ = mersenne_state(
            ResetPoint(seed=3, words=candidate, gauss_cached=True, loads=2).random_state()
        )
        if position == mersenne_state(generator)[1] and np.array_equal(key, mersenne_state(generator)[0]):
            words = candidate
    assert words > 800
    point = ResetPoint(seed=3, words=words, gauss_cached=True, loads=2)
    np.testing.assert_array_equal(point.random_state().uniform(size=9), generator.uniform(size=9))


def test_a_table_comes_back(tmp_path: Path) -> None:
    task = load_suite("libero_goal")[0]
    entry = TaskResets(
        model_sha256="ab",
        points=(first_reset(5), ResetPoint(seed=5, words=99, gauss_cached=True, loads=3)),
        fixtures=("stove_1",),
        poses=np.random.default_rng(0).normal(size=(2, 1, 7)),
    )
    write_table(tmp_path / "table.npz", {(str(task), 5): entry})
    again = FixturePoseTable(tmp_path / "table.npz").resets(task, 5)
    assert again is not None
    assert (again.model_sha256, again.points, again.fixtures) == (entry.model_sha256, entry.points, entry.fixtures)
    np.testing.assert_array_equal(again.poses, entry.poses)


@pytest.mark.sim
@pytest.mark.parametrize(("suite", "index"), [("libero_spatial", 4), ("libero_goal", 0), ("libero_10", 5)])
def test_the_table_equals_stock_resets(suite: str, index: int) -> None:

    from tests.harness.stock import stock_environment

    task = load_suite(suite)[index]
    known = shipped_table().resets(task, 0)
    assert known is not None
    env = stock_environment(task)
    env.seed(0)
    for k in range(8):
        env.reset()
        bodies = [env.env.obj_body_id[name] for name in known.fixtures]
        model = env.env.sim.model
        np.testing.assert_array_equal(known.poses[k, :, :3], model.body_pos[bodies])
        np.testing.assert_array_equal(known.poses[k, :, 3:], model.body_quat[bodies])
    env.close()


@pytest.mark.sim
def test_a_reset_lands_on_the_tables_poses_in_any_order_and_without_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.sim.simulator import Simulator

    task, protocol = load_suite("libero_spatial")[4], openvla()
    known = shipped_table().resets(task, 0)
    assert known is not None
    simulator = Simulator(task, protocol)
    for index in (31, 2, 49, 0, 31):
        simulator.reset(make_episode(task, Official(index=index), protocol))
        np.testing.assert_array_equal(simulator.scene.fixture_poses(), known.poses[index])
    assert simulator.table_matches
    simulator.close()

    monkeypatch.setattr(Simulator, "_table_holds", lambda self, entry: False)
    replaying = Simulator(task, protocol)
    replaying.reset(make_episode(task, Official(index=6), protocol))
    np.testing.assert_array_equal(replaying.scene.fixture_poses(), known.poses[6])
    assert not replaying.table_matches
    replaying.close()


@pytest.mark.sim
def test_a_per_episode_protocol_needs_no_table() -> None:

    from harness.sim.simulator import Simulator
    from tests.harness.stock import stock_environment

    task, protocol = load_suite("libero_spatial")[4], lerobot()
    simulator = Simulator(task, protocol)
    simulator.reset(make_episode(task, Official(index=3), protocol))
    env = stock_environment(task)
    env.seed(1003)
    env.reset()
    bodies = [env.env.obj_body_id[name] for name in simulator.scene.fixtures]
    np.testing.assert_array_equal(simulator.scene.fixture_poses()[:, :3], env.env.sim.model.body_pos[bodies])
    env.close()
    simulator.close()
