"""How the expert holds LIBERO's bowls, and what it keeps away from. Lengths in metres; each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.interface import PrivilegedState


@dataclass(frozen=True, slots=True, kw_only=True)
class RimGrasp:
    """A grasp of a round vessel's wall: one finger inside, one outside."""

    rim_height: float
    """Rim above the object's origin, which is at the bottom's centre."""
    radius: float
    """Where the wall is at grasping depth."""
    depth: float
    """End effector below the rim: deeper slips on the sloped wall, shallower holds too little."""
    entry_radius: float
    """Where the hand descends; below `radius` where there is no room for the outer finger, which then closes onto the wall."""


BOWL_ON_TOP = RimGrasp(rim_height=0.052, radius=0.050, depth=0.016, entry_radius=0.050)
BOWL_IN_DRAWER = RimGrasp(rim_height=0.052, radius=0.046, depth=0.014, entry_radius=0.030)
"""The gaps to the drawer's walls (25 to 50 mm) do not take the open gripper on the rim."""

RIM_GRASPS = {"akita_black_bowl": BOWL_ON_TOP}
"""Categories the expert can pick up."""

PLACE_HEIGHTS = {"plate": 0.020}
"""Categories the expert can place on: the object's origin above the target's on release."""

OUTER_FINGER = 0.045
"""From the wall to the far face of the open outer finger."""
HAND_HALF_LENGTH, HAND_HALF_WIDTH = 0.100, 0.032
"""The hand's box: along the finger axis and across it."""
FIXTURE_RADII = {"wooden_cabinet": 0.13}
"""Tall fixtures the hand must not be turned over: half their width."""
FLAT_FIXTURES = ("flat_stove",)
"""Fixtures lower than a bowl: the hand passes above them."""
NEIGHBOUR_RADIUS = 0.055
"""Half the size of the objects beside a bowl."""

COMFORTABLE_REACH = 0.72
"""Horizontal distance from the robot's base within which the elbow stays off its limit with the hand at table height."""


def rim_candidates(count: int = 24) -> NDArray[np.float64]:
    """Directions (count, 2) from the vessel's centre to points of its wall."""
    angles = np.arange(count) * 2 * np.pi / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def choose_direction(state: PrivilegedState, name: str, grasp: RimGrasp) -> NDArray[np.float64]:
    """The horizontal direction (2,) from the vessel's centre to where its wall is best grasped.

    Costs: a finger on a neighbour, the hand over something tall, a stretched arm, and turning away from the hand's present yaw.
    """
    centre = state.position_world(name)
    fingers_now = state.eef_rotation_world[:2, 0]

    def cost(direction: NDArray[np.float64]) -> float:
        total = 0.3 * (1.0 - abs(float(direction @ fingers_now)))
        reach = float(np.linalg.norm(centre[:2] + direction * grasp.radius - state.base_position_world[:2]))
        total += max(0.0, reach - COMFORTABLE_REACH) * 10.0
        for other in state.names:
            position = state.position_world(other)
            if other == name or state.category(other) in FLAT_FIXTURES:
                continue
            if state.category(other) in FIXTURE_RADII:
                hand = centre[:2] + direction * grasp.radius
                stands_on_it = float(np.linalg.norm(position[:2] - centre[:2])) < 0.10
                total += (
                    0.0 if stands_on_it else _hand_in_fixture(position[:2] - hand, direction, state.category(other))
                )
            elif position[2] > centre[2] - 0.05:
                outer = centre[:2] + direction * (grasp.radius + OUTER_FINGER / 2)
                clearance = float(np.linalg.norm(position[:2] - outer)) - NEIGHBOUR_RADIUS
                total += max(0.0, 0.04 - clearance) * 50.0
        return total

    return min(rim_candidates(), key=cost)


def _hand_in_fixture(offset: NDArray[np.float64], direction: NDArray[np.float64], category: str) -> float:
    """How far the hand's box reaches into a fixture whose centre lies at `offset` (2,) from it [dimensionless cost]."""
    radius = FIXTURE_RADII[category]
    across = np.array([-direction[1], direction[0]])
    along = abs(float(offset @ direction)) - HAND_HALF_LENGTH - radius
    sideways = abs(float(offset @ across)) - HAND_HALF_WIDTH - radius
    return max(0.0, -max(along, sideways)) * 20.0
