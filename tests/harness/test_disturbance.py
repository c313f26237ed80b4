"""Disturbances of demonstrations."""

from __future__ import annotations

import numpy as np

from harness.sim.disturbance import (
    ACTION_STD,
    ASIDE_STEPS,
    CARRYING,
    DROP_STEPS,
    FUMBLE_CHANCE,
    FUMBLE_STEPS,
    MISPLACED_STEPS,
    OVERREACH_CHANCE,
    OVERREACH_STEPS,
    PUSH_CHANCE,
    PUSH_STEPS,
    START_STEPS,
    STILL,
    Disturbance,
    steps_allowed,
)

ACTION = np.array([0.1, -0.2, 0.5, 0.0, 0.0, 0.5, -1.0])
RESTING = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
CLOSED = np.array([0.1, -0.2, 0.5, 0.0, 0.0, 0.5, 1.0])
CARRIES = np.array([0.1, -0.7, -0.2, 0.0, 0.0, 0.5, 1.0])


def disturbed(strength: float, steps: int, seed: int = 0, action: np.ndarray = ACTION) -> np.ndarray:
    disturbance = Disturbance(strength, np.random.default_rng(seed))
    return np.stack([disturbance.applied(action) for _ in range(steps)])


def test_none_leaves_every_bit() -> None:
    np.testing.assert_array_equal(disturbed(0.0, 50), np.tile(ACTION, (50, 1)))


def test_the_same_seed_disturbs_alike_and_another_does_not() -> None:
    np.testing.assert_array_equal(disturbed(1.0, 50), disturbed(1.0, 50))
    assert not np.array_equal(disturbed(1.0, 50), disturbed(1.0, 50, seed=1))


def test_actions_stay_executable_and_fingers_that_reach_for_nothing_are_left_alone() -> None:
    actions = disturbed(3.0, 2000)
    assert np.abs(actions).max() <= 1.0
    assert (actions[:, 6] == -1.0).all()


def test_a_hand_that_moves_gets_the_noise_others_little_and_one_that_closes_or_lifts_none() -> None:
    moving, resting, closed, carrying = (
        (disturbed(1.0, 20_000, action=action) - action)[START_STEPS:, 3:5]
        for action in (ACTION, RESTING, CLOSED, CARRIES)
    )  # rotations: pushes are translations
    assert 0.95 * CARRYING * ACTION_STD < carrying.std() < 1.05 * CARRYING * ACTION_STD
    assert 0.95 * ACTION_STD < moving.std() < 1.05 * ACTION_STD
    assert 0.95 * STILL * ACTION_STD < resting.std() < 1.05 * STILL * ACTION_STD
    assert (closed == 0.0).all()
    aslant = np.array([0.6, 0.0, 0.6, 0.0, 0.0, 0.0, 1.0])
    assert (disturbed(1.0, 2000, action=aslant)[START_STEPS:] == aslant).all()
    for action in (RESTING, CLOSED, CARRIES):
        later = disturbed(1.0, 20_000, action=action)[START_STEPS:, :3] - action[:3]
        assert np.abs(later).max() < 6 * CARRYING * ACTION_STD  # nobody pushes


def test_open_fingers_that_hold_something_are_left_alone() -> None:
    slides = np.array([*CARRIES[:6], -1.0])
    pressing = Disturbance(1.0, np.random.default_rng(0))
    actions = np.stack([pressing.applied(slides, presses=True) for _ in range(2000)])
    assert (actions[START_STEPS:] == slides).all()


def test_fingers_that_reach_for_something_now_and_then_close_by_themselves_until_the_hand_is_near() -> None:
    reaching = Disturbance(1.0, np.random.default_rng(0))
    closing = np.array([reaching.applied(ACTION, reaches=True)[6] for _ in range(20_000)])
    assert set(closing) == {-1.0, 1.0}
    assert 0.8 < (closing == 1.0).mean() / (FUMBLE_CHANCE * FUMBLE_STEPS / (1 + FUMBLE_CHANCE * FUMBLE_STEPS)) < 1.2
    while reaching.applied(ACTION, reaches=True)[6] < 0:
        pass
    assert [reaching.applied(ACTION, reaches=reaches)[6] for reaches in (True, False)] == [1.0, -1.0]
    calm = Disturbance(0.0, np.random.default_rng(0))
    assert all(calm.applied(ACTION, reaches=True)[6] == -1.0 for _ in range(1000))


def test_it_starts_with_a_push_and_pushes_now_and_then() -> None:
    actions = disturbed(1.0, 20_000)
    pushed = np.abs(actions[:, :3]).max(axis=1) > 0.95  # noise alone would need four standard deviations
    assert pushed[:START_STEPS].mean() > 0.5
    expected = PUSH_CHANCE * PUSH_STEPS / (1 + PUSH_CHANCE * PUSH_STEPS)
    assert 0.4 * expected < pushed[START_STEPS:].mean() < 1.5 * expected


def test_a_hand_that_reaches_far_is_pushed_on_now_and_then() -> None:
    outward = np.array([0.6, -0.8, 0.0])

    def pushed_on(strength: float, where: np.ndarray | None) -> np.ndarray:
        reaching = Disturbance(strength, np.random.default_rng(0))
        actions = np.stack([reaching.applied(ACTION, outward=where) for _ in range(20_000)])
        along = np.convolve(actions[START_STEPS:, :3] @ outward, np.ones(OVERREACH_STEPS) / OVERREACH_STEPS, "valid")
        return along > 0.85  # on average over such a push, which is longer than others

    share = OVERREACH_CHANCE * OVERREACH_STEPS / (1 + OVERREACH_CHANCE * OVERREACH_STEPS)
    found = pushed_on(1.0, outward)
    assert 0.2 < found.mean() / share < 0.8  # windows that lie within a push
    assert not pushed_on(1.0, None).any()
    assert not pushed_on(0.0, outward).any()


def test_what_is_lowered_is_carried_aside_and_dropped_once() -> None:
    lowering = np.array([0.0, 0.1, -0.6, 0.0, 0.2, 0.0, 1.0])
    astray = Disturbance(0.0, np.random.default_rng(0), misplaced=1.0)
    np.testing.assert_array_equal(astray.applied(CARRIES), CARRIES)
    begun = astray.applied(lowering, lowers=True)  # then to its end, whatever the expert wants meanwhile
    executed = np.stack([begun, *(astray.applied(lowering) for _ in range(60)), astray.applied(lowering, lowers=True)])
    aside = int((executed[:, 6] == -1.0).argmax())
    assert ASIDE_STEPS[0] <= aside < ASIDE_STEPS[1]
    np.testing.assert_allclose(np.linalg.norm(executed[:aside, :2], axis=1), 1.0)
    assert (executed[:aside, :2] == executed[0, :2]).all()
    assert (executed[:aside, [2, 6]] == [0.0, 1.0]).all()
    np.testing.assert_array_equal(executed[aside : aside + DROP_STEPS], np.tile(RESTING, (DROP_STEPS, 1)))
    np.testing.assert_array_equal(executed[aside + DROP_STEPS :], np.tile(lowering, (62 - aside - DROP_STEPS, 1)))


def test_things_are_misplaced_as_often_as_said_and_nothing_else_changes() -> None:
    lowering, seeds = np.array([0.0, 0.0, -0.6, 0.0, 0.0, 0.0, 1.0]), range(1000)

    def misplaces(seed: int, chance: float) -> bool:
        astray = Disturbance(1.0, np.random.default_rng(seed), misplaced=chance)
        return any(astray.applied(lowering, lowers=True)[6] < 0 for _ in range(20))

    assert 0.25 < np.mean([misplaces(seed, 0.3) for seed in seeds]) < 0.35
    assert not any(misplaces(seed, 0.0) for seed in range(100))


def test_recovering_is_given_time() -> None:
    assert (steps_allowed(220, 0.0), steps_allowed(220, 1.0), steps_allowed(220, 0.5)) == (220, 275, 248)
    assert steps_allowed(220, 1.0, 0.1) == 275 + MISPLACED_STEPS
