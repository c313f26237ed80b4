"""Picking things up and putting them down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.expert.grasps import APPROACH, Grasp, best_grasp
from harness.expert.motion import CAREFUL, CARRYING, EMPTY, FREE, TIGHT, Action, Motion, Skill
from harness.expert.servo import CLOSED, OPEN, UP, Vector

SLIPPED = 0.03
"""An object that moved this far in the hand was dropped [m]."""
STILL_OPEN = 0.075
"""Distance of the fingers [m] from which on they have not begun to close: they open to 0.08."""
LIFTED = 0.3
"""Share of the hand's rise by which the object's origin must have risen: a plate held by its rim tilts."""
FUNNEL = 5.0
"""How much farther before a grasp a hand stays for every metre that it is beside its way."""
LOWERED_MOST = 0.02
"""What was picked up high, from a cabinet, is carried at most this far above `Placement.above` [m]: lowered from there at the end it
takes longer than an evaluation allows."""
FORGIVEN = 1
"""Where the hand is disturbed, so many grasps that did not hold are no reason to choose another one: a policy, which does not
remember, cannot learn from what it sees that another one is taken."""
NEARLY_DOWN = 0.02
"""Nearer above its place than this, something is about to be let go [m]."""
APPROACHES, ARRIVED = 2, 0.04
"""How often the hand comes in for a grasp at most, and how near it must get [m]: an arm that its own momentum has stretched stalls."""
CLOSING_STEPS, OPENING_STEPS = 15, 10
"""A thin wall is first gripped at step 10 from fully open; a few more for the force to build up."""
MOST_OPENING_STEPS = 20
"""Fingers that are not open after so long are not going to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a held object is put."""

    goal: Callable[[], Vector]
    """(3,) [m]: where its origin is to be when it is let go."""
    above: float
    """Height over `goal` from which it is lowered [m]."""
    turned: Callable[[], NDArray[np.float64]] | None = None
    """The hand's orientation (3, 3) for it; None: as it was grasped."""
    alignment: float = 0.015
    """How near above the goal it must be before it is lowered [m]."""
    tolerance: float = 0.006
    """How near the goal it must be to be let go [m]."""
    hand_above: float = -np.inf
    """The end effector stays above this height in world [m]: the hand does not fit further down."""
    retreat: float = APPROACH
    """How far the hand goes up afterwards [m]."""
    lowering: float = CAREFUL
    """Speed of the descent."""
    level: bool = False
    """Whether it may stand beside its place, too: nothing falls over or down there."""


def distance_before(away: Vector, approach: Vector, tolerance: float) -> float:
    """How far before a grasp a hand stays [m], so that it comes in along the approach and not across.

    Args:
        away: (3,) [m]: the hand from the grasp.
        approach: (3,) unit vector.
        tolerance: how far beside the way is near enough [m].
    """
    beside = float(np.linalg.norm(away - (away @ approach) * approach))
    return FUNNEL * max(0.0, beside - tolerance)


class Carrier:
    """Picks one object up and puts it down elsewhere.

    Args:
        motion: the hand.
        name: the object.
    """

    def __init__(self, motion: Motion, name: str) -> None:
        self._motion = motion
        self._name = name
        self._failed: list[Grasp] = []

    def pick(self, grasp: Grasp | None = None) -> Skill:
        """Grasp and lift, with the best grasp unless one is given; returns whether the object came along."""
        motion, now = self._motion, self._motion.now
        if self.held():
            return True
        failed = self._failed[FORGIVEN:] if motion.is_disturbed else self._failed
        grasp = grasp or best_grasp(now(), self._name, failed=failed)
        motion.rotation = grasp.rotation

        def entry(back: float = 0.0) -> Vector:
            return now().position_world(self._name) + grasp.entry - grasp.approach * back

        def down() -> Vector:
            """The entry; before it while the hand is beside its way, where its own momentum carries it."""
            away = now().eef_position_world - entry()
            return entry(min(grasp.back, distance_before(away, grasp.approach, motion.grasp_tolerance)))

        for approach in range(APPROACHES):
            motion.reaches = approach == 0
            yield from motion.travel(lambda: entry(grasp.back), OPEN, FREE, 0.012, turn_tolerance=0.06)
            motion.reaches = False
            yield from self._open(lambda: entry(grasp.back))
            yield from motion.go(down, OPEN, CAREFUL, motion.grasp_tolerance)
            if np.linalg.norm(now().eef_position_world - entry()) < ARRIVED:
                break
        yield from self._close(now().position_world(self._name) + grasp.offset)
        start = now().position_world(self._name)[2]
        above = now().eef_position_world + grasp.lift
        yield from motion.go(lambda: above, CLOSED, CAREFUL, min(0.015, float(grasp.lift[2]) / 4))
        risen = now().position_world(self._name)[2] - start
        if risen > grasp.lift[2] * LIFTED and now().finger_width > EMPTY and self.held():
            return True
        self._failed.append(grasp)
        return False

    def _open(self, position: Callable[[], Vector]) -> Iterator[Action]:
        """Wait at `position()` (3,) until the fingers are open, if they can be."""
        for _ in range(MOST_OPENING_STEPS):
            if self._motion.now().finger_width > STILL_OPEN:
                return
            yield self._motion.toward(position(), OPEN, CAREFUL)

    def _close(self, position: Vector) -> Iterator[Action]:
        """Close the fingers at `position` (3,): if it moved with the object, the hand would chase what a finger pushes."""
        motion = self._motion
        yield from motion.stay(CLOSING_STEPS, CLOSED, position)
        while motion.only_advises and motion.now().finger_width > STILL_OPEN:
            yield motion.toward(position, CLOSED, TIGHT)

    def held(self) -> bool:
        """Whether both fingers hold the object."""
        return self._motion.now().fingers_touch(self._name) == 2

    def place(self, placement: Placement) -> Skill:
        """Carry the held object to its place, lower it and let go; returns whether it was not dropped on the way."""
        motion, now = self._motion, self._motion.now
        if placement.turned is not None:
            motion.rotation = placement.turned()
        self._hold = now().eef_rotation_world.T @ (now().position_world(self._name) - now().eef_position_world)
        above_goal = placement.goal()[2] + placement.above
        carry_z = np.clip(now().position_world(self._name)[2], above_goal, above_goal + LOWERED_MOST)

        def above() -> Vector:
            return self._hand_for(np.array([*placement.goal()[:2], carry_z]))

        def down() -> Vector:
            hand = self._hand_for(placement.goal())
            hand[2] = max(hand[2], placement.hand_above)
            return hand

        dropped = self._dropped
        yield from motion.travel(
            above, CLOSED, CARRYING, 0.06, held=self._name, turn_tolerance=0.15, turn_speed=0.4, until=dropped
        )
        yield from motion.go(above, CLOSED, CAREFUL, placement.alignment, turn_tolerance=0.08, until=dropped)
        motion.lowers = lambda: placement.level and bool((now().eef_position_world - down())[2] < NEARLY_DOWN)
        yield from motion.go(down, CLOSED, placement.lowering, placement.tolerance, until=dropped)
        motion.lowers = lambda: False
        if dropped():
            return False
        yield from motion.stay(OPENING_STEPS, OPEN)
        return True

    def retreat(self, height: float = APPROACH) -> Iterator[Action]:
        """Up and away."""
        away = self._motion.now().eef_position_world + UP * height
        yield from self._motion.go(lambda: away, OPEN, CAREFUL, 0.015)

    def _hand_for(self, object_goal: Vector) -> Vector:
        """Where the hand must be for the held object to be at `object_goal`: the hold is measured at every step."""
        state = self._motion.now()
        return object_goal + state.eef_position_world - state.position_world(self._name)

    def _dropped(self) -> bool:
        state = self._motion.now()
        offset = state.eef_rotation_world.T @ (state.position_world(self._name) - state.eef_position_world)
        return bool(np.linalg.norm(offset - self._hold) > SLIPPED or state.finger_width < EMPTY)
