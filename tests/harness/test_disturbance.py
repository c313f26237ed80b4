"""Disturbances of demonstrations."""

from __future__ import annotations

import numpy as np

from harness.sim.disturbance import PUSH_CHANCE, PUSH_STEPS, START_STEPS, Disturbance, steps_allowed

ACTION = np.array([0.1, -0.2, 0.3, 0.0, 0.0, 0.5, 1.0])


def disturbed(strength: float, steps: int, seed: int = 0) -> np.ndarray:
    disturbance = Disturbance(strength, np.random.default_rng(seed))
    return np.stack([disturbance.applied(ACTION) for _ in range(steps)])


def test_none_leaves_every_bit() -> None:
    np.testing.assert_array_equal(disturbed(0.0, 50), np.tile(ACTION, (50, 1)))


def test_the_same_seed_disturbs_alike_and_another_does_not() -> None:
    np.testing.assert_array_equal(disturbed(1.0, 50), disturbed(1.0, 50))
    assert not np.array_equal(disturbed(1.0, 50), disturbed(1.0, 50, seed=1))


def test_actions_stay_executable_and_the_gripper_is_left_alone() -> None:
    actions = disturbed(3.0, 2000)
    assert np.abs(actions).max() <= 1.0
    assert (actions[:, 6] == 1.0).all()


def test_it_starts_with_a_push_and_pushes_now_and_then() -> None:
    actions = disturbed(1.0, 20_000)
    pushed = np.abs(actions[:, :3]).max(axis=1) > 0.95  # noise alone would need four standard deviations
    assert pushed[:START_STEPS].mean() > 0.5
    expected = PUSH_CHANCE * PUSH_STEPS / (1 + PUSH_CHANCE * PUSH_STEPS)
    assert 0.4 * expected < pushed[START_STEPS:].mean() < 1.5 * expected


def test_recovering_is_given_time() -> None:
    assert (steps_allowed(220, 0.0), steps_allowed(220, 1.0), steps_allowed(220, 0.5)) == (220, 440, 330)
