"""The scripted expert: works on the parts of the goal that do not hold yet, again and again, until all do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from harness.expert.motion import Action, Motion
from harness.expert.planner import Plan, next_predicate
from harness.expert.servo import OPEN
from tasks.bddl import Predicate
from tasks.interface import PrivilegedState

LEVEL = np.array([1.0, 1.0, 0.0])


class ScriptedExpert:
    """One episode's expert; see `tasks.interface.WorkerPolicy`.

    Every phase is closed loop on the present poses; what did not work is planned again from where things are now.

    Args:
        disturbed: whether the hand may move otherwise than it is told.
    """

    def __init__(self, *, disturbed: bool = False) -> None:
        self._actions: Iterator[Action] | None = None
        self._state: PrivilegedState
        self._motion: Motion | None = None
        self._disturbed, self._only_advises = disturbed, False
        self._situation: tuple[Predicate | None, int] = (None, 0)
        self.between_skills = False
        """Whether the last action began a new skill, or nothing is left to do: whatever was held has been let go."""

    def act(self, state: PrivilegedState) -> Action:
        self._state = state
        if self._actions is None:
            self._situation = self._see()
            self._actions = self._perform()
        self.between_skills = False
        return next(self._actions)

    @property
    def presses(self) -> bool:
        """Whether open fingers hold something, spread inside it."""
        return self._motion is not None and self._motion.presses

    @property
    def reaches(self) -> bool:
        """Whether the hand is on its way to a grasp, and not near it yet."""
        return self._motion is not None and self._motion.reaches

    @property
    def outward(self) -> NDArray[np.float64] | None:
        """(3,) unit vector from the robot to the hand, level, while it is on its way to a grasp on an arm that is nearly stretched."""
        if self._motion is None or not self._motion.reaches or not self._motion.is_stretched():
            return None
        away = (self._state.eef_position_world - self._state.base_position_world) * LEVEL
        return away / np.linalg.norm(away)

    @property
    def lowers(self) -> bool:
        """Whether what is held is about to be let go, where it may stand beside its place too."""
        return self._motion is not None and self._motion.lowers()

    def advise(self, *, only: bool) -> None:
        """Say whether its next action will be executed, or somebody else's in its place."""
        self._only_advises = only
        if self._motion is not None:
            self._motion.only_advises = only

    def reconsider(self) -> None:
        """Say that somebody else's action is executed: plan anew if that leads to another situation."""
        if self._actions is not None and self._situation != self._see():
            self._actions = None

    def _see(self) -> tuple[Predicate | None, int]:
        """What is to be done next, and with how many fingers its object is held."""
        predicate = next_predicate(self._state)
        if predicate is None or len(predicate) < 3:
            return predicate, 0
        return predicate, self._state.fingers_touch(predicate[1])

    def _perform(self) -> Iterator[Action]:
        self._motion = motion = Motion(lambda: self._state, disturbed=self._disturbed)
        motion.only_advises = self._only_advises
        plan = Plan(motion)
        while True:
            predicate = next_predicate(self._state)
            self.between_skills = True
            if predicate is None:
                yield from motion.stay(1, OPEN)
            else:
                yield from plan.skill(predicate)
