"""The microwave: putting a mug in by its handle, and working the door. Lengths in metres, in the microwave's frame, with reasons."""

from __future__ import annotations

import numpy as np

from harness.expert.grasps import Grasp
from harness.expert.hand import OPEN_HAND, clearance, obstacles
from harness.expert.motion import CAREFUL, CARRYING, FREE, TIGHT, Motion, Skill
from harness.expert.picking import Carrier
from harness.expert.servo import (
    CLOSED,
    OPEN,
    UP,
    Vector,
    about,
    gripper_along,
    gripper_down,
    nearest_of_pair,
    rotation_error,
)
from tasks.interface import PrivilegedState

HINGE = np.array([-0.1725, -0.088, 0.0])
"""The door turns about the vertical through it."""
DOOR_HEIGHT = 0.165
"""Of the end effector at the door: the palm passes above it."""
PUSH_RADIUS = 0.20
"""Where the door is pushed, from the hinge: near its free edge (0.26), short of the handle that stands out at 0.24."""
AHEAD = 0.35
"""How far ahead of the door the hand is commanded [rad]."""
DOOR_THICKNESS = 0.012
DOOR_HANDLE = np.array([0.237, -0.056, 0.096])
"""The middle of the handle's bar, from the hinge, with the door shut."""
PULL_AHEAD = 0.25
"""How far ahead of the door the hand is commanded when it pulls [rad]."""
AJAR, WIDE = -0.75, -1.40
"""Joint positions: how far the handle is pulled, and the inside pushed; LIBERO calls it open below -1.3."""
SHUT = -0.003
"""Joint position; LIBERO calls it closed above -0.005."""

HANDLE = np.array([0.064, 0.0, 0.066])
"""Of the mug, in its frame: where the hand takes it, above the middle, so that the wrist stays off the table."""
HANDLE_APPROACH = 0.035
"""No further back than the open fingers need: another mug may stand there."""
MUG_LIFT = 0.045
INSIDE_X = -0.040
"""The middle of the opening."""
BEFORE, INSIDE = -0.215, 0.006
"""Along y: the mug in front of the opening, and where it stands: 0.02 behind it is the wall, and the door takes the handle's place."""
FLOOR = 0.024
TILT = 0.15
"""The hand points down by this much [rad]: the wrist clears the table, the fingers still clear the ceiling."""


def put_in(motion: Motion, mug: str, microwave: str) -> Skill:
    """Take a mug by its handle and put it into the open microwave; returns whether it stands inside.

    By the handle, because the hand does not fit in above a mug.
    """
    carrier, now = Carrier(motion, mug), motion.now
    grasp = _handle_grasp(now(), mug)
    if not (yield from carrier.pick(grasp)):
        yield from carrier.retreat()
        return False

    def hand_for(y: float, height: float) -> Vector:
        state = now()
        goal = state.position_world(microwave) + state.rotation_world(microwave) @ np.array([INSIDE_X, y, height])
        return goal + state.eef_position_world - state.position_world(mug)

    facing = -now().rotation_world(microwave)[:, 1]
    motion.rotation = about(UP, _bearing(-facing) - _bearing(motion.rotation[:, 2])) @ motion.rotation
    yield from motion.go(
        lambda: hand_for(BEFORE, FLOOR + 0.020), CLOSED, CARRYING, 0.010, turn_tolerance=0.06, turn_speed=0.4
    )
    yield from motion.go(lambda: hand_for(INSIDE, FLOOR + 0.015), CLOSED, TIGHT, 0.006)
    yield from motion.go(lambda: hand_for(INSIDE, FLOOR + 0.002), CLOSED, TIGHT, 0.004)
    yield from motion.stay(10, OPEN)
    back = now().eef_position_world + facing * 0.12
    yield from motion.go(lambda: back, OPEN, CAREFUL, 0.015)
    return now().holds(("in", mug, f"{microwave}_heating_region"))


def _bearing(vector: Vector) -> float:
    """Of a vector (3,) about the vertical [rad]."""
    return float(np.arctan2(vector[1], vector[0]))


def _handle_grasp(state: PrivilegedState, mug: str) -> Grasp:
    """The hand nearly level, pointing at the cup, from where nothing stands in its way."""
    turned, points = state.rotation_world(mug), obstacles(state, except_for=(mug,))
    offset = turned @ HANDLE

    def grasp(angle: float) -> Grasp:
        inward = about(UP, angle) @ -turned[:, 0]
        pointing = inward * np.cos(TILT) - UP * np.sin(TILT)
        across = np.cross(UP, inward)
        return Grasp(
            offset=offset,
            entry=offset,
            rotation=nearest_of_pair(gripper_along(pointing, across), state.eef_rotation_world),
            approach=inward,
            back=HANDLE_APPROACH,
            lift=UP * MUG_LIFT,
            opening=0.018,
        )

    def cost(grasp: Grasp) -> float:
        place = state.position_world(mug) + grasp.entry
        room = min(
            clearance(OPEN_HAND, place - grasp.approach * back, grasp.rotation, points)
            for back in (0.0, HANDLE_APPROACH)
        )
        return (
            max(0.0, 0.02 - room) * 50.0
            + float(np.linalg.norm(rotation_error(grasp.rotation, state.eef_rotation_world))) * 0.3
        )

    return min((grasp(angle) for angle in np.deg2rad([0, -10, -20, -30, 10, 20])), key=cost)


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

    def _beside(self, angle: float, side: float, distance: float) -> Vector:
        """(3,) in world: a point `distance` [m] off the door's outer (side -1) or inner (+1) face, the door at `angle` [rad]."""
        state = self._motion.now()
        door = about(UP, angle)
        point = HINGE + door @ np.array([PUSH_RADIUS, side * (DOOR_THICKNESS + distance), 0.0]) + UP * DOOR_HEIGHT
        return state.position_world(self._microwave) + state.rotation_world(self._microwave) @ point

    def _sweep(self, side: float, room: float, wanted: float) -> Skill:
        """Push the door with closed fingers until its joint is past `wanted` [rad]; returns whether it is.

        Args:
            side: of the door that is pushed: -1 the outer, which shuts it, +1 the inner.
            room: from where the fingers come [m].
        """
        motion, shutting = self._motion, side < 0

        def done() -> bool:
            return self.position() > wanted if shutting else self.position() < wanted

        # along the microwave's front to shut it, across to open it: the other way round the wrist meets its limit
        axis = motion.now().rotation_world(self._microwave)[:, 0 if shutting else 1]
        motion.rotation = nearest_of_pair(gripper_down(axis), motion.now().eef_rotation_world)
        yield from motion.travel(
            lambda: self._beside(self.position(), side, room), CLOSED, FREE, 0.02, turn_tolerance=0.1
        )
        yield from motion.go(
            lambda: self._beside(min(0.1, self.position() - side * AHEAD), side, 0.005),
            CLOSED,
            CAREFUL,
            0.0,
            until=done,
        )
        back = self._beside(self.position(), side, room) + UP * (0.0 if shutting else 0.10)
        yield from motion.go(lambda: back, CLOSED, CAREFUL, 0.02)
        return done()

    def _handle(self, angle: float) -> Vector:
        """(3,) in world: the middle of the handle, with the door at `angle` [rad]."""
        state = self._motion.now()
        point = HINGE + about(UP, angle) @ DOOR_HANDLE
        return state.position_world(self._microwave) + state.rotation_world(self._microwave) @ point

    def open(self) -> Skill:
        """Take the handle from ahead and pull it along its arc, then push the door's inside; returns whether it is open.

        The hand does not turn with the door: the handle is a round bar, and turns between the fingers. The arm gets no further than
        half open that way.
        """
        motion = self._motion
        if self.position() > AJAR:
            facing = -motion.now().rotation_world(self._microwave)[:, 1]
            across = motion.now().rotation_world(self._microwave)[:, 0]
            motion.rotation = nearest_of_pair(gripper_along(-facing, across), motion.now().eef_rotation_world)
            yield from motion.travel(
                lambda: self._handle(self.position()) + facing * 0.08, OPEN, FREE, 0.012, turn_tolerance=0.06
            )
            yield from motion.go(lambda: self._handle(self.position()), OPEN, CAREFUL, 0.005)
            yield from motion.stay(14, CLOSED)
            yield from motion.go(
                lambda: self._handle(self.position() - PULL_AHEAD),
                CLOSED,
                CAREFUL,
                0.0,
                until=lambda: self.position() < AJAR,
            )
            yield from motion.stay(8, OPEN)
            back = motion.now().eef_position_world + facing * 0.06
            yield from motion.go(lambda: back, OPEN, CAREFUL, 0.02)
        return (yield from self._sweep(1.0, 0.04, WIDE))

    def close(self) -> Skill:
        """Sweep the door shut with closed fingers on its outer face; returns whether it is shut."""
        return (yield from self._sweep(-1.0, 0.10, SHUT))
