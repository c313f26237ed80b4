"""What disturbs a demonstration, so that recovery is in the data: a moved start, noise on every action, pushes.

The action that is executed differs from the one that is learnt: a demonstration keeps the expert's own answer to the state that the
disturbance led to (Laskey et al., DART, arXiv 1703.09327).

An open hand is disturbed as it moves, little while it rests, and not at all while it closes or lifts: what slips out of its fingers is
grasped again, and then the expert rises with open fingers from where another demonstration closes them. A policy that sees one picture
cannot tell the two apart, and does neither. A hand that carries something is led astray a little: without that no demonstration shows
how to come back above the place it is put down at. On the way to a grasp, and well before it, the fingers sometimes close by
themselves: a policy that has missed then knows what to do with empty hands. Where the arm is nearly stretched the hand is sometimes
pushed on until it is, as a policy's momentum does: only rising bends it again, which nothing else shows. Fingers that are spread
inside a plate and slide it would leave it, and are not disturbed.

What is put down may be carried beside its place at the end, and dropped there: a policy that lets go in the wrong place then knows to
take it again. The expert's labels meanwhile: back above the place, and do not let go.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ACTION_STD, ACTION_MEMORY = 0.15, 0.8
"""Standard deviation of the noise on translation and rotation at strength 1, and how much of it carries over to the next step."""
FAST, STILL, CARRYING = 0.5, 0.2, 0.3
"""An open hand whose action is at least the first, in its largest entry, gets all of the noise, one at rest the second part, and a
closed one that moves sideways so fast, and does not rise (a lift may be aslant), the third."""
PUSH_CHANCE, PUSH_STEPS = 0.01, 5
"""Per step: whether a push begins at strength 1, while the hand is open and moves; and how long it lasts."""
OVERREACH_CHANCE, OVERREACH_STEPS = 0.02, 12
"""Per step: whether an open hand that reaches far is pushed on, away from the robot, at strength 1; and for how long. The arm is
straight then, and no pull bends it."""
FUMBLE_CHANCE, FUMBLE_STEPS = 0.03, 20
"""Per step: whether the fingers begin to close by themselves at strength 1, while the hand is on its way to a grasp; and for how long,
unless it is near before. They take 18 steps."""
ASIDE_STEPS = (4, 8)
"""How many steps what is misplaced is carried aside with full speed, from … to below: by about 3 to 8 cm."""
DROP_STEPS, MISPLACED_STEPS = 14, 120
"""How long the fingers then open; and how much longer such a demonstration may take: it is all done again."""
START_STEPS = 8
"""Steps of random motion before a demonstration at strength 1."""
LEEWAY = 0.25
"""How much longer than an evaluation a demonstration may take at strength 1, as a share: recovering takes time, but what takes much
longer shows how to fail."""


def steps_allowed(horizon: int, strength: float, misplaced: float = 0.0) -> int:
    """Control steps a disturbed demonstration may take, where an evaluation has `horizon`."""
    return round(horizon * (1.0 + LEEWAY * strength)) + (MISPLACED_STEPS if misplaced > 0.0 else 0)


class Disturbance:
    """Of one episode.

    Args:
        strength: 0 for none; 1 makes about one push in a demonstration.
        generator: draws everything.
        misplaced: probability that something is put down beside its place, once.
    """

    def __init__(self, strength: float, generator: np.random.Generator, *, misplaced: float = 0.0) -> None:
        self._strength = strength
        self._generator = generator
        self._noise = np.zeros(6)
        self._push = self._direction()
        self._push_left = round(START_STEPS * strength)
        self._fumble_left = 0
        self._misplaces = misplaced > 0.0 and generator.random() < misplaced
        self._aside = np.zeros(2)
        self._aside_left = self._drop_left = 0

    def applied(
        self,
        action: NDArray[np.float64],
        *,
        presses: bool = False,
        reaches: bool = False,
        outward: NDArray[np.float64] | None = None,
        lowers: bool = False,
    ) -> NDArray[np.float64]:
        """The action (7,) to be executed in place of `action` (7,).

        Args:
            presses: whether open fingers hold something, spread inside it: then nothing is disturbed.
            reaches: whether the hand is on its way to a grasp, and not near it: else its fingers are left alone.
            outward: (3,) where the hand would stretch the arm, while it is on its way to a grasp that is far; else None.
            lowers: whether what it holds is about to be let go where it may stand beside its place.
        """
        if self._misplaces and lowers:
            self._begin_misplacing()
        if self._aside_left > 0:
            self._aside_left -= 1
            return np.array([*self._aside, 0.0, *action[3:6], 1.0])
        if self._drop_left > 0:
            self._drop_left -= 1
            return np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
        if self._strength == 0.0:
            return action
        if presses:
            share = 0.0
        elif action[6] < 0:
            share = max(STILL, min(1.0, float(np.abs(action[:3]).max()) / FAST))
        else:
            share = CARRYING if np.abs(action[:2]).max() >= FAST and action[2] < FAST else 0.0
        if self._push_left == 0 and self._generator.random() < PUSH_CHANCE * self._strength and share == 1.0:
            self._push, self._push_left = self._direction(), PUSH_STEPS
        if (
            outward is not None
            and self._push_left == 0
            and self._generator.random() < OVERREACH_CHANCE * self._strength
        ):
            self._push, self._push_left = outward, OVERREACH_STEPS
        fresh = self._generator.normal(scale=ACTION_STD * self._strength, size=6)
        self._noise = ACTION_MEMORY * self._noise + np.sqrt(1.0 - ACTION_MEMORY**2) * fresh
        disturbed = action.copy()
        if self._push_left > 0:
            self._push_left -= 1
            disturbed[:3] = self._push
        disturbed[:6] = np.clip(disturbed[:6] + share * self._noise, -1.0, 1.0)
        disturbed[6] = self._fumbled(action[6], reaches=reaches)
        return disturbed

    def _begin_misplacing(self) -> None:
        self._misplaces = False
        angle = self._generator.uniform(0.0, 2.0 * np.pi)
        self._aside = np.array([np.cos(angle), np.sin(angle)])
        self._aside_left, self._drop_left = int(self._generator.integers(*ASIDE_STEPS)), DROP_STEPS

    def _fumbled(self, gripper: float, *, reaches: bool) -> float:
        if not reaches:
            self._fumble_left = 0
            return gripper
        if self._fumble_left == 0 and self._generator.random() < FUMBLE_CHANCE * self._strength:
            self._fumble_left = FUMBLE_STEPS
        if self._fumble_left == 0:
            return gripper
        self._fumble_left -= 1
        return 1.0

    def _direction(self) -> NDArray[np.float64]:
        direction = self._generator.normal(size=3)
        push: NDArray[np.float64] = direction / np.abs(direction).max()
        return push
