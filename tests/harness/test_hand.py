"""Distances between the hand and what stands around it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from harness.expert.hand import CLOSED_HAND, FAR, OPEN_HAND, clearance, in_frame, joined
from harness.expert.servo import gripper_down
from tasks.boxes import Boxes

DOWN = gripper_down(np.array([1.0, 0.0, 0.0]))


def box(centre: list[float], half: list[float], turn: float = 0.0) -> Boxes:
    return Boxes(
        centres=np.array([centre]),
        axes=Rotation.from_euler("z", turn).as_matrix()[None],
        half_sizes=np.array([half]),
    )


def test_distance_from_a_turned_box() -> None:
    turned = box([0.0, 0.0, 0.0], [0.1, 0.02, 0.02], turn=np.pi / 2)  # along y
    points = np.array([[0.0, 0.15, 0.0], [0.05, 0.0, 0.0], [0.0, 0.09, 0.0], [0.02 + 0.03, 0.1 + 0.04, 0.0]])
    np.testing.assert_allclose(turned.distances(points), [0.05, 0.03, -0.01, 0.05], atol=1e-12)


def test_nothing_is_near_no_box() -> None:
    empty = joined([])
    assert np.isinf(empty.distances(np.zeros((1, 3)))).all()


def test_corners_are_those_of_the_turned_box() -> None:
    corners = box([1.0, 0.0, 0.0], [0.1, 0.02, 0.3], turn=np.pi / 2).corners()[0]
    np.testing.assert_allclose(corners.max(axis=0), [1.02, 0.1, 0.3], atol=1e-12)
    np.testing.assert_allclose(corners.min(axis=0), [0.98, -0.1, -0.3], atol=1e-12)


@pytest.mark.parametrize(
    ("hand", "point", "expected"),
    [
        (OPEN_HAND, [0.0, 0.0, -0.02], 0.02 - 0.009 + 0.0),  # straight below the middle: the fingers are beside it
        (CLOSED_HAND, [0.0, 0.0, -0.02], 0.011),  # the fingertips are 9 mm below the grip site
        (CLOSED_HAND, [0.10, 0.0, 0.05], -0.0),  # the palm's end
        (CLOSED_HAND, [0.0, 0.0, 0.05], -0.019),  # inside the palm, 31 to 97 mm above
        (OPEN_HAND, [1.0, 0.0, 0.0], FAR),
    ],
)
def test_clearance_of_a_hand_that_points_down(hand: Boxes, point: list[float], expected: float) -> None:
    here = np.array([0.3, -0.2, 0.5])
    found = clearance(hand, here, DOWN, here + np.array([point]))
    if hand is OPEN_HAND and expected < FAR:
        expected = float(np.hypot(0.039, 0.011))
    assert found == pytest.approx(expected, abs=1e-9)


def test_what_is_held_moves_with_the_hand() -> None:
    here, there = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.5, 0.5])
    held = in_frame(box([0.1, 0.2, 0.2], [0.02, 0.02, 0.05]), here, DOWN)
    below = there + np.array([[0.0, 0.0, -0.17]])
    assert clearance(held, there, DOWN, below) == pytest.approx(0.02)
