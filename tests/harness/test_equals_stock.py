"""The fast simulator equals stock LIBERO, bit for bit: states, proprioception, images, success.

One task of each main suite here; `scripts/equals_stock.py` does all forty.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from results.trace import read_trace
from tasks.interface import Official, Outcome
from tasks.plan import make_episode
from tasks.protocols import openvla
from tasks.suites import load_suite
from tests.harness.test_engine import settings

STEPS = {1: 100, 4: 30}
"""Of the episode that follows that many of stock's resets; the script does 200."""
IMAGES_EVERY = 20
"""Stock draws no others here, but all of them in the script."""


@pytest.mark.sim
@pytest.mark.parametrize(
    ("suite", "index"), [("libero_spatial", 4), ("libero_object", 0), ("libero_goal", 7), ("libero_10", 3)]
)
def test_one_hundred_steps_equal_stock(suite: str, index: int) -> None:
    from harness.sim.simulator import Simulator
    from tests.harness.stock import StockLoop, contact_seeking_actions, differences, robot_contacts, seen

    task, protocol = load_suite(suite)[index], openvla()
    stock, simulator = StockLoop(task, protocol), Simulator(task, protocol)
    touched = 0
    stock.reset()
    for k, resets_before in zip(STEPS, (0, 3), strict=True):
        for _ in range(resets_before):
            stock.reset()
        expected = stock.begin(k - 1)
        # Other episodes in between: an episode must not depend on what ran before it.
        simulator.reset(make_episode(task, Official(index=7), protocol))
        simulator.step(contact_seeking_actions(1, 0)[0])
        simulator.reset(make_episode(task, Official(index=k - 1), protocol))
        assert differences(expected, seen(simulator, False, images=True)) == [], f"k = {k}, start"
        for step, action in enumerate(contact_seeking_actions(STEPS[k], seed=k), start=1):
            images = step % IMAGES_EVERY == 0
            expected = stock.step(action, images=images)
            success = simulator.step(action)
            touched += robot_contacts(simulator) > 0
            unequal = differences(expected, seen(simulator, success, images=images))
            assert unequal == [], f"k = {k}, step {step}: {unequal}"
    assert touched > 20, f"the robot touched something on {touched} steps only: the test shows too little"
    assert simulator.table_matches
    stock.close()
    simulator.close()


@pytest.mark.sim
def test_a_successful_episode_succeeds_in_stock_at_the_same_step(tmp_path: Path) -> None:
    """The expert's actions, played through stock LIBERO: equal at every step, up to the goal."""
    from harness.sim.episode import EpisodeRunner
    from tests.harness.stock import StockLoop

    task, protocol = load_suite("libero_spatial")[5], openvla()
    runner = EpisodeRunner(settings(tmp_path, worker_policy="expert"))
    record = runner.run(make_episode(task, Official(index=0), protocol), 1, lambda _: None)  # type: ignore[arg-type,return-value]
    runner.close()
    assert record.outcome is Outcome.SUCCESS
    trace = read_trace(tmp_path / record.trace)
    ours = np.concatenate([trace.time_s[:, None], trace.qpos, trace.qvel], axis=1)

    stock = StockLoop(task, protocol)
    stock.reset()
    np.testing.assert_array_equal(stock.begin(0).state, ours[0])
    successes = []
    for step, action in enumerate(trace.actions, start=1):
        seen = stock.step(action, images=False)
        np.testing.assert_array_equal(seen.state, ours[step], err_msg=f"step {step}")
        successes.append(seen.success)
    stock.close()
    assert successes == [False] * (record.steps - 1) + [True]
