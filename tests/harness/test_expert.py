from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness.expert.pick_and_place import UnsupportedTaskError, check_supported
from scipy.spatial.transform import Rotation

from harness.expert.servo import gripper_down, nearest_of_pair, rotation_error
from harness.sim.settings import RolloutSettings
from tasks.interface import Official, OpenLoopSpec, Outcome, WorkerPolicy
from tasks.plan import make_episode
from tasks.protocols import openvla
from tasks.suites import load_suite


def test_it_covers_libero_spatial_and_says_what_it_cannot() -> None:
    for task in load_suite("libero_spatial"):
        check_supported(task)
    with pytest.raises(
        UnsupportedTaskError, match=r"cannot do libero_goal/07 \(turnon flat_stove_1\): it places akita_black_bowl"
    ):
        check_supported(load_suite("libero_goal")[7])


def test_the_hand_points_down_with_its_fingers_along_the_axis() -> None:
    rotation = gripper_down(np.array([3.0, 4.0, 0.0]))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation[:, 0], [0.6, 0.8, 0.0])
    np.testing.assert_allclose(rotation[:, 2], [0.0, 0.0, -1.0])


def test_of_two_equal_grasps_the_nearer_is_taken() -> None:
    now = gripper_down(np.array([1.0, 0.0, 0.0]))
    for angle in np.linspace(-np.pi, np.pi, 17):
        wanted = gripper_down(np.array([np.cos(angle), np.sin(angle), 0.0]))
        assert np.linalg.norm(rotation_error(nearest_of_pair(wanted, now), now)) <= np.pi / 2 + 1e-9


def test_rotation_error_is_a_turn_in_the_world() -> None:
    current = Rotation.random(random_state=0).as_matrix()
    turn = np.array([0.1, -0.2, 0.3])
    np.testing.assert_allclose(rotation_error(Rotation.from_rotvec(turn).as_matrix() @ current, current), turn)


@pytest.mark.sim
def test_it_is_a_worker_policy_and_solves_every_task_of_libero_spatial(tmp_path: Path) -> None:
    """Ten episodes here; the rate over all 500 official init states is in README.md."""
    from harness.policies.worker import make_worker_policy
    from harness.sim.episode import EpisodeRunner

    assert isinstance(make_worker_policy("expert"), WorkerPolicy)
    settings = RolloutSettings(
        protocol="openvla",
        cameras=(),
        image_convention="raw",
        ensemble=OpenLoopSpec(),
        worker_policy="expert",
        run_dir=tmp_path,
    )
    runner = EpisodeRunner(settings)
    outcomes = {}
    for task in load_suite("libero_spatial"):
        record = runner.run(make_episode(task, Official(index=11), openvla()), 1, lambda _: None)  # type: ignore[arg-type,return-value]
        outcomes[task.index] = record.outcome
        assert record.clipped_actions == 0
    runner.close()
    assert set(outcomes.values()) == {Outcome.SUCCESS}, outcomes
