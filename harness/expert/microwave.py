"""The microwave: putting a mug in by its handle, and working the door. Lengths in metres, in the microwave's frame, with reasons."""

from __future__ import annotations

import numpy as np

from harness.expert.motion import CAREFUL, FREE, Motion, Skill
from harness.expert.servo import CLOSED, OPEN, UP, Vector, about, gripper_down, nearest_of_pair

HINGE = np.array([-0.1725, -0.088, 0.0])
"""The door turns about the vertical through it."""
DOOR_HEIGHT = 0.150
"""Of the fingertips on the door: high up, so that the hand stays above the mug and the table."""
PUSH_RADIUS = 0.20
"""Where the door is pushed, from the hinge: near its free edge (0.26), short of the handle that stands out at 0.24."""
AHEAD = 0.35
"""How far ahead of the door the hand is commanded [rad]."""
DOOR_THICKNESS = 0.012
SHUT = -0.003
"""Joint position; LIBERO calls it closed above -0.005."""


class Door:
    """The microwave's door: joint position 0 is shut, -2.09 wide open.

    Args:
        motion: the hand.
        microwave: its name.
    """

    def __init__(self, motion: Motion, microwave: str) -> None:
        self._motion = motion
        self._microwave = microwave

    def position(self) -> float:
        """Of its joint [rad]."""
        return self._motion.now().joint_position(self._microwave)

    def _on_door(self, angle: float, outside: float) -> Vector:
        """(3,) in world: a point `outside` [m] off the outer face, with the door at `angle` [rad]."""
        state = self._motion.now()
        door = about(UP, angle)
        point = HINGE + door @ np.array([PUSH_RADIUS, -DOOR_THICKNESS - outside, 0.0]) + UP * DOOR_HEIGHT
        return state.position_world(self._microwave) + state.rotation_world(self._microwave) @ point

    def close(self) -> Skill:
        """Sweep the door shut with closed fingers on its outer face; returns whether it is shut."""
        motion = self._motion
        motion.rotation = nearest_of_pair(
            gripper_down(motion.now().rotation_world(self._microwave)[:, 0]), motion.now().eef_rotation_world
        )
        yield from motion.travel(
            lambda: self._on_door(self.position(), 0.10), CLOSED, FREE, 0.02, turn_tolerance=0.1
        )
        yield from motion.go(
            lambda: self._on_door(min(0.1, self.position() + AHEAD), 0.005),
            CLOSED,
            CAREFUL,
            0.0,
            until=lambda: self.position() > SHUT,
        )
        back = self._on_door(self.position(), 0.10)
        yield from motion.go(lambda: back, CLOSED, CAREFUL, 0.02)
        return self.position() > -0.005


__all__ = ["OPEN", "Door"]
