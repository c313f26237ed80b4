"""The expert for goals of the form On(bowl, plate): pick the bowl up by its rim and put it down on the plate.

Every phase is closed loop on the present poses; a grasp that did not hold is planned again from where
things are now.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from harness.expert.grasps import BOWL_IN_DRAWER, PLACE_HEIGHTS, RIM_GRASPS, RimGrasp, choose_direction
from harness.expert.servo import CLOSED, OPEN, gripper_down, nearest_of_pair, rotation_error, servo
from tasks.bddl import read_problem
from tasks.interface import PrivilegedState, TaskSpec

Action = NDArray[np.float64]
Vector = NDArray[np.float64]

APPROACH = 0.10
"""Height above the grasp from which the hand descends [m]."""
LIFT = 0.12
"""Height above the higher of start and target at which the object is carried [m]."""
FREE, CARRYING, CAREFUL, TIGHT = 1.0, 0.7, 0.6, 0.4
"""Speeds: in free space, with something in the hand (faster, a rim slips out), near things, between things."""
SLIPPED = 0.03
"""An object that moved this far in the hand was dropped [m]."""
PATIENCE_STEPS = 15
"""A phase without 1 mm of progress for this long is left."""


class UnsupportedTaskError(ValueError):
    """The expert has no plan for a task's goal."""


def check_supported(task: TaskSpec) -> None:
    """Whether the expert can plan the task, from its BDDL alone.

    Raises:
        UnsupportedTaskError: it cannot; the message says what it can.
    """
    problem = read_problem(task.bddl_file)
    kinds = {**problem.objects, **problem.fixtures}
    for predicate in problem.goal:
        supported = len(predicate) == 3 and predicate[0] == "on"
        if not (supported and kinds.get(predicate[1]) in RIM_GRASPS and kinds.get(predicate[2]) in PLACE_HEIGHTS):
            raise UnsupportedTaskError(
                f"the scripted expert cannot do {task} ({' '.join(predicate)}): it places {', '.join(RIM_GRASPS)} "
                f"on {', '.join(PLACE_HEIGHTS)}, which covers libero_spatial. Use another --policy for this suite."
            )


class PickAndPlaceExpert:
    """One episode's expert; see `tasks.interface.WorkerPolicy`."""

    def __init__(self) -> None:
        self._actions: Iterator[Action] | None = None
        self._state: PrivilegedState

    def act(self, state: PrivilegedState) -> Action:
        self._state = state
        if self._actions is None:
            self._actions = self._perform()
        return next(self._actions)

    def _perform(self) -> Iterator[Action]:
        while True:  # until the episode ends; a task that is done is checked over and over
            for _, thing, target in self._state.goal:
                yield from _MoveObject(lambda: self._state, thing, target).perform()


class _MoveObject:
    """Carries one object onto another."""

    def __init__(self, state: Callable[[], PrivilegedState], thing: str, target: str) -> None:
        self._now = state
        self._thing = thing
        self._target = target
        self._rotation = state().eef_rotation_world

    def perform(self) -> Iterator[Action]:
        grasp = self._plan_grasp()
        if (yield from self._pick(grasp)):
            yield from self._place()
        yield from self._retreat()

    # --- picking -----------------------------------------------------------------------------------

    def _drawer(self) -> str | None:
        """The cabinet whose open drawer the object lies in."""
        state = self._now()
        for name in state.names:
            if state.category(name) == "wooden_cabinet":
                offset = state.rotation_world(name).T @ (state.position_world(self._thing) - state.position_world(name))
                if 0.05 < offset[2] < 0.215 and abs(offset[0]) < 0.12 and -0.35 < offset[1] < 0.0:
                    return name
        return None

    def _plan_grasp(self) -> RimGrasp:
        """Choose where to grasp; fixes the direction and the hand's orientation."""
        state = self._now()
        cabinet = self._drawer()
        if cabinet is None:
            grasp = RIM_GRASPS[state.category(self._thing)]
            self._direction = choose_direction(state, self._thing, grasp)
        else:
            grasp = BOWL_IN_DRAWER
            axis = -state.rotation_world(cabinet)[:2, 0]
            self._direction = axis / np.linalg.norm(axis)
        finger_axis = np.append(self._direction, 0.0)
        self._rotation = nearest_of_pair(gripper_down(finger_axis), state.eef_rotation_world)
        return grasp

    def _grasp_position(self, grasp: RimGrasp, radius: float) -> Vector:
        position = self._now().position_world(self._thing)
        position[:2] += self._direction * radius
        position[2] += grasp.rim_height - grasp.depth
        return position

    def _pick(self, grasp: RimGrasp) -> Generator[Action, None, bool]:
        """Grasp and lift; returns whether the object came along."""
        up = np.array([0.0, 0.0, APPROACH])
        yield from self._go(
            lambda: self._grasp_position(grasp, grasp.entry_radius) + up, OPEN, FREE, 0.012, turn_tolerance=0.06
        )
        yield from self._go(lambda: self._grasp_position(grasp, grasp.entry_radius), OPEN, CAREFUL, 0.004)
        for _ in range(15):
            yield self._servo(self._grasp_position(grasp, grasp.radius), CLOSED, TIGHT)
        start = self._now().position_world(self._thing)[2]
        above = self._now().eef_position_world + np.array([0.0, 0.0, LIFT])
        yield from self._go(lambda: above, CLOSED, CAREFUL, 0.015)
        return bool(self._now().position_world(self._thing)[2] > start + LIFT / 2 and self._now().finger_width > 0.002)

    # --- placing -----------------------------------------------------------------------------------

    def _place(self) -> Iterator[Action]:
        state = self._now()
        release_height = PLACE_HEIGHTS[state.category(self._target)]
        carry_z = max(state.position_world(self._thing)[2], state.position_world(self._target)[2] + LIFT)

        def above() -> Vector:
            goal = self._now().position_world(self._target)
            goal[2] = carry_z
            return self._hand_for(goal)

        def down() -> Vector:
            goal = self._now().position_world(self._target)
            goal[2] += release_height
            return self._hand_for(goal)

        self._hold = state.position_world(self._thing) - state.eef_position_world
        yield from self._go(above, CLOSED, CARRYING, 0.06, holding=True)
        yield from self._go(above, CLOSED, CAREFUL, 0.015, holding=True)
        yield from self._go(down, CLOSED, CAREFUL, 0.006, holding=True)
        hold = self._now().eef_position_world
        for _ in range(10):
            yield self._servo(hold, OPEN, TIGHT)

    def _hand_for(self, object_goal: Vector) -> Vector:
        """Where the hand must be for the held object to be at `object_goal`: the hold is measured at every step."""
        state = self._now()
        return object_goal + state.eef_position_world - state.position_world(self._thing)

    def _dropped(self) -> bool:
        state = self._now()
        moved = state.position_world(self._thing) - state.eef_position_world - self._hold
        return bool(np.linalg.norm(moved) > SLIPPED or state.finger_width < 0.002)

    def _retreat(self) -> Iterator[Action]:
        away = self._now().eef_position_world + np.array([0.0, 0.0, APPROACH])
        yield from self._go(lambda: away, OPEN, CAREFUL, 0.015)

    # --- moving ------------------------------------------------------------------------------------

    def _servo(self, position: Vector, gripper: float, speed: float) -> Action:
        return servo(self._now(), position, self._rotation, gripper, speed)

    def _go(
        self,
        position: Callable[[], Vector],
        gripper: float,
        speed: float,
        tolerance: float,
        *,
        turn_tolerance: float = np.inf,
        holding: bool = False,
    ) -> Iterator[Action]:
        """Servo to `position()` until within `tolerance` [m] and `turn_tolerance` [rad], or until nothing moves.

        With `holding` it also ends when the object is dropped.
        """
        best, waited = np.inf, 0
        while waited < PATIENCE_STEPS:
            state = self._now()
            distance = float(np.linalg.norm(position() - state.eef_position_world))
            turn = float(np.linalg.norm(rotation_error(self._rotation, state.eef_rotation_world)))
            if (distance < tolerance and turn < turn_tolerance) or (holding and self._dropped()):
                return
            progress = distance + 0.1 * turn if np.isfinite(turn_tolerance) else distance
            best, waited = (progress, 0) if progress < best - 0.001 else (best, waited + 1)
            yield self._servo(position(), gripper, speed)
