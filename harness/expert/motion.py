"""Moving the hand, closed loop: each step looks at where things are now and yields one action."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from harness.expert.hand import CLOSED_HAND, OPEN_HAND, clearance, in_frame, joined, obstacles
from harness.expert.servo import CLOSED, OPEN, Vector, rotation_error, servo
from tasks.interface import PrivilegedState

Action = NDArray[np.float64]
Skill = Generator[Action, None, bool]
"""Yields actions; returns whether it did what it was for."""

FREE, CARRYING, CAREFUL, TIGHT = 1.0, 0.7, 0.6, 0.4
"""Speeds: in free space, with something in the hand (faster, a rim slips out), near things, between things."""
EMPTY = 0.002
"""Fingers nearer than this hold nothing [m]."""
PATIENCE_STEPS = 15
"""A phase without 1 mm of progress for this long is left."""
GRASP_TOLERANCE, DISTURBED_GRASP_TOLERANCE = 0.004, 0.008
"""How near the hand must be to where it is to close [m]; a disturbed one would hover there for long before it is nearer."""
ELBOW, STRETCHED, STRAIGHT, LOCKED, BENT = 3, -1.2, -0.3, -0.1, -0.5
"""The joint of the arm that its own momentum may stretch; from which angles on it is far, nearly and quite straight, and up to which
it is then bent [rad]. It ends at -0.07. No pull towards the robot bends an arm that is straight: expert and policies alike stayed
there until the end."""
BEGINNING_STEPS, STOPPED = 4, 0.0005
"""Fingers move fast after so many steps; those that then move less than this in a step [m] have closed on something, or are open."""
STUCK_STEPS, MOST_RISING_STEPS = 5, 40
"""How long an empty hand on a straight arm may not get nearer before it rises, and how long it rises at most."""
PUSHED_AWAY = 0.005
"""A disturbed hand that is this much farther from its goal than before was pushed, and does not stall [m]."""
CLEARANCE = 0.012
"""Distance the hand keeps from things it passes [m]."""
RISE, MOST_RISE = 0.03, 0.36
"""How much higher a way that is blocked is tried, and at most [m]."""


class Motion:
    """The hand of one episode.

    Args:
        now: the present state.
        disturbed: whether the hand may move otherwise than it is told.
    """

    def __init__(self, now: Callable[[], PrivilegedState], *, disturbed: bool = False) -> None:
        self.now = now
        self.grasp_tolerance = DISTURBED_GRASP_TOLERANCE if disturbed else GRASP_TOLERANCE
        self.is_disturbed = disturbed
        """Whether the hand may move otherwise than it is told."""
        self.only_advises = False
        """Whether somebody else moves the hand: then nothing is given up because it moves, or does, otherwise than it is told."""
        self.presses = False
        """Whether open fingers hold something, spread inside it."""
        self.reaches = False
        """Whether the hand is on its way to a grasp, and not near it yet."""
        self.lowers: Callable[[], bool] = lambda: False
        """Whether what is held is about to be let go, where it may stand beside its place too."""
        self.rotation = now().eef_rotation_world
        """The orientation (3, 3) that the hand is held in."""

    def toward(self, position: Vector, gripper: float, speed: float, turn_speed: float = 1.0) -> Action:
        """One action towards a position (3,) [m]."""
        return servo(self.now(), position, self.rotation, gripper, speed=speed, turn_speed=turn_speed)

    def go(
        self,
        position: Callable[[], Vector],
        gripper: float,
        speed: float,
        tolerance: float,
        *,
        turn_tolerance: float = np.inf,
        turn_speed: float = 1.0,
        until: Callable[[], bool] = lambda: False,
    ) -> Iterator[Action]:
        """Servo to `position()` until within `tolerance` [m] and `turn_tolerance` [rad], until `until()`, or nothing moves."""
        best, waited, has_risen = np.inf, 0, False
        while waited < PATIENCE_STEPS:
            state = self.now()
            distance = float(np.linalg.norm(position() - state.eef_position_world))
            turn = float(np.linalg.norm(rotation_error(self.rotation, state.eef_rotation_world)))
            if (distance < tolerance and turn < turn_tolerance) or until():
                return
            if not has_risen and self._is_stuck(gripper, waited):
                yield from self._unbend(gripper)
                best, waited, has_risen = np.inf, 0, True
                continue
            progress = distance + 0.1 * turn if np.isfinite(turn_tolerance) else distance
            away = best + (0.001 if self.only_advises else PUSHED_AWAY if self.is_disturbed else np.inf)
            best, waited = (best, waited + 1) if best - 0.001 <= progress <= away else (progress, 0)
            yield self.toward(position(), gripper, speed, turn_speed)

    def is_stretched(self) -> bool:
        """Whether little more would make the arm straight."""
        return bool(self.now().arm_joints[ELBOW] > STRETCHED)

    def _is_stuck(self, gripper: float, waited: int) -> bool:
        """Whether an empty hand is at the end of a straight arm and came no nearer for `waited` steps; a disturbed one never rests."""
        state = self.now()
        is_empty = gripper == OPEN or state.finger_width < EMPTY
        elbow = state.arm_joints[ELBOW]
        return is_empty and bool((elbow > STRAIGHT and waited >= STUCK_STEPS) or (self.is_disturbed and elbow > LOCKED))

    def _unbend(self, gripper: float) -> Iterator[Action]:
        """Straight up, without turning: that bends a straight arm."""
        for _ in range(MOST_RISING_STEPS):
            if self.now().arm_joints[ELBOW] < BENT:
                return
            yield np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, gripper])

    def stay(self, steps: int, gripper: float, position: Vector | None = None) -> Iterator[Action]:
        """Hold still at `position` (3,), or here, for the fingers to open or close.

        Where the hand is disturbed, only until they have stopped. A hand that waits looks the same at every step: a policy, which does
        not count them, may wait for good. (Fingers that somebody else moves may not have begun.)
        """
        here = self.now().eef_position_world if position is None else position
        width = np.inf
        for step in range(steps):
            before, width = width, self.now().finger_width
            obeyed = self.is_disturbed and not self.only_advises
            if obeyed and step >= BEGINNING_STEPS and abs(before - width) < STOPPED:
                return
            yield self.toward(here, gripper, TIGHT)

    def travel(
        self,
        position: Callable[[], Vector],
        gripper: float,
        speed: float,
        tolerance: float,
        *,
        held: str = "",
        turn_tolerance: float = np.inf,
        turn_speed: float = 1.0,
        until: Callable[[], bool] = lambda: False,
    ) -> Iterator[Action]:
        """As `go`, rising first where something stands in the straight way."""
        start, goal = self.now().eef_position_world, position()
        height = self._free_height(start, goal, gripper, held)
        if height > start[2] + 0.01:
            above = np.array([start[0], start[1], height])
            yield from self.go(lambda: above, gripper, speed, 0.03, turn_speed=turn_speed, until=until)
        if height > goal[2] + 0.01:

            def over() -> Vector:
                return np.array([*position()[:2], max(height, position()[2])])

            yield from self.go(over, gripper, speed, 0.03, turn_speed=turn_speed, until=until)
        yield from self.go(
            position, gripper, speed, tolerance, turn_tolerance=turn_tolerance, turn_speed=turn_speed, until=until
        )

    def _free_height(self, start: Vector, goal: Vector, gripper: float, held: str) -> float:
        """The height [m] at which the hand, and what it holds, pass from above `start` to above `goal`; 0 if straight."""
        state = self.now()
        hand = CLOSED_HAND if gripper == CLOSED and not held else OPEN_HAND
        if held:
            hand = joined([hand, in_frame(state.boxes(held), state.eef_position_world, state.eef_rotation_world)])
        points = obstacles(state, except_for=(held,) if held else ())
        orientations = (state.eef_rotation_world, self.rotation)  # it turns on the way

        def blocked(way: list[Vector]) -> bool:
            return any(clearance(hand, place, turned, points) < CLEARANCE for place in way for turned in orientations)

        steps = max(2, int(np.linalg.norm(goal - start) / 0.03))
        straight = [start + (goal - start) * k / steps for k in range(1, steps)]
        if not blocked(straight):
            return 0.0
        height = max(start[2], goal[2])
        most = height + MOST_RISE
        while height < most:
            across = [np.array([*place[:2], height]) for place in straight]
            if not blocked(across):
                break
            height += RISE
        return height
