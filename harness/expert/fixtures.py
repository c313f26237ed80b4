"""Working LIBERO's fixtures: drawers, the stove's knob, the microwave's door. Lengths in metres, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from harness.expert.motion import CAREFUL, FREE, TIGHT, Action, Motion, Skill
from harness.expert.servo import CLOSED, OPEN, UP, Vector, about, gripper_along, gripper_down, nearest_of_pair

DRAWER_OPEN, DRAWER_ROOMY = -0.145, -0.146
"""Joint positions: LIBERO calls a drawer open below -0.14; further (the limit is -0.16), it overhangs what stands before it."""
DRAWER_SHUT = 0.002
"""LIBERO calls it closed above 0; the limit is 0.01."""
PULL = 0.040
"""How far ahead of the handle the hand is commanded: the drawer is damped with 50 N s/m."""
BACK_OFF = 0.080
"""From the handle, before rising: the fingers are around it."""

KNOB_CENTRE = (-0.005, 0.0, 0.035)
"""Of the stove's knob, in the stove's frame."""
KNOB_ON, KNOB_OFF = 0.75, -0.005
"""Joint positions; LIBERO calls it on from 0.5, off below 0."""
TURN_AHEAD = 0.5
"""How far ahead of the knob the hand is commanded [rad]: one full unit of the action."""


class Drawer:
    """One drawer of a cabinet.

    Args:
        motion: the hand.
        region: the drawer's region, such as `wooden_cabinet_1_top_region`.
    """

    def __init__(self, motion: Motion, region: str) -> None:
        self._motion = motion
        self._region = region
        self._cabinet = motion.now().parent(region)
        self._stalled = 0

    def position(self) -> float:
        """Of its joint [m]: 0 is shut, -0.16 wide open."""
        return self._motion.now().joint_position(self._region)

    def outward(self) -> Vector:
        """(3,) unit vector in world along which it opens."""
        return -self._motion.now().rotation_world(self._cabinet)[:, 1]

    def handle(self) -> Vector:
        """(3,) [m] in world: the middle of its bar, the part that is furthest out."""
        centres = self._motion.now().boxes(self._region).centres
        bar: Vector = centres[int(np.argmax(centres @ self.outward()))]
        return bar

    def open(self, wanted: float = DRAWER_OPEN) -> Skill:
        """Take the handle from ahead, fingers above and below it, and pull; returns whether it is open."""
        motion = self._motion
        motion.rotation = nearest_of_pair(gripper_along(-self.outward(), UP), motion.now().eef_rotation_world)
        yield from motion.travel(
            lambda: self.handle() + self.outward() * BACK_OFF, OPEN, FREE, 0.012, turn_tolerance=0.06
        )
        yield from motion.go(lambda: self.handle() - self.outward() * 0.002, OPEN, CAREFUL, 0.005)
        yield from motion.stay(14, CLOSED)
        yield from motion.go(
            lambda: self.handle() + self.outward() * PULL, CLOSED, 1.0, 0.0, until=lambda: self.position() < wanted
        )
        yield from motion.stay(8, OPEN)
        yield from self._back_off(OPEN)
        return self.position() < DRAWER_OPEN

    def close(self) -> Skill:
        """Push the handle with closed fingers; returns whether it is shut.

        The hand is tilted: upright, it meets the handles above or link 5 meets the cabinet. Another tilt is tried when one stalls.
        """
        motion = self._motion
        tilt = (1.2, 0.9, 1.4)[self._stalled % 3]
        across = motion.now().rotation_world(self._cabinet)[:, 0]
        pointing = -UP * np.cos(tilt) - self.outward() * np.sin(tilt)
        motion.rotation = nearest_of_pair(gripper_along(pointing, across), motion.now().eef_rotation_world)
        yield from motion.travel(
            lambda: self.handle() + self.outward() * BACK_OFF, CLOSED, FREE, 0.012, turn_tolerance=0.1
        )
        yield from motion.go(
            lambda: self.handle() - self.outward() * PULL, CLOSED, 0.7, 0.0, until=lambda: self.position() > DRAWER_SHUT
        )
        yield from self._back_off(CLOSED)
        shut = self.position() > 0.0
        self._stalled += not shut
        return shut

    def _back_off(self, gripper: float) -> Iterator[Action]:
        back = self._motion.now().eef_position_world + self.outward() * BACK_OFF
        yield from self._motion.go(lambda: back, gripper, CAREFUL, 0.015)


def turn_knob(motion: Motion, stove: str, wanted: float) -> Skill:
    """Turn the stove's knob to a joint position [rad]; returns whether it got there."""

    def turned(angle: float) -> NDArray[np.float64]:
        return motion.now().rotation_world(stove) @ about(UP, angle)

    def centre() -> Vector:
        state = motion.now()
        return state.position_world(stove) + state.rotation_world(stove) @ np.array(KNOB_CENTRE)

    def angle() -> float:
        return motion.now().joint_position(stove)

    motion.rotation = nearest_of_pair(gripper_down(turned(angle())[:, 1]), motion.now().eef_rotation_world)
    at_start, start = motion.rotation, angle()
    yield from motion.travel(lambda: centre() + UP * 0.08, OPEN, FREE, 0.010, turn_tolerance=0.06)
    yield from motion.go(centre, OPEN, CAREFUL, 0.004)
    yield from motion.stay(14, CLOSED)
    sign = 1.0 if wanted > start else -1.0
    for _ in range(60):
        if (wanted - angle()) * sign < 0:
            break
        motion.rotation = about(UP, angle() - start + sign * TURN_AHEAD) @ at_start
        yield motion.toward(centre(), CLOSED, TIGHT)
    yield from motion.stay(10, OPEN)
    up = motion.now().eef_position_world + UP * 0.10
    yield from motion.go(lambda: up, OPEN, CAREFUL, 0.015)
    return (wanted - angle()) * sign < 0.1
