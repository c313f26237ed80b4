"""From a goal to skills: what has to be done next, and where things go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harness.expert.fixtures import DRAWER_ROOMY, KNOB_OFF, KNOB_ON, Drawer, turn_knob
from harness.expert.grasps import HOLDS, NoGraspError
from harness.expert.microwave import Door, put_in
from harness.expert.motion import Motion, Skill
from harness.expert.picking import Carrier, Placement
from harness.expert.servo import OPEN, UP, Vector, about, gripper_down, nearest_of_pair
from harness.expert.sliding import slide_plate
from tasks.bddl import Predicate, Problem, read_problem
from tasks.interface import PrivilegedState, TaskSpec

ORDER = ("turnoff", "turnon", "open", "in", "on", "close")
"""What is done first: doors and drawers are opened before things go in, and closed last."""
BESIDE = 0.045
"""Two moka pots on one burner stand this far off its middle, along x [m]."""
DRAWER_MIDDLE = -0.145
"""Where a thing is put into an open drawer, along the cabinet's y: the middle of the part that the cabinet does not cover."""


class UnsupportedTaskError(ValueError):
    """The expert has no plan for a task's goal."""


def check_supported(task: TaskSpec) -> None:
    """Whether the expert can plan the task, from its BDDL alone.

    Raises:
        UnsupportedTaskError: it cannot; the message says why.
    """
    problem = read_problem(task.bddl_file)
    for predicate in problem.goal:
        reason = _unsupported(problem, predicate)
        if reason:
            raise UnsupportedTaskError(
                f"the scripted expert cannot do {task} ({' '.join(predicate)}): {reason}. Use another --policy for this task."
            )


def _unsupported(problem: Problem, predicate: Predicate) -> str:
    kinds = {**problem.objects, **problem.fixtures}
    kind, name = predicate[:2]
    if kind in ("on", "in"):
        if kinds.get(name) not in HOLDS:
            return f"it has no grasp for {kinds.get(name, name)}"
        if kinds.get(problem_parent(problem, predicate[2])) == "microwave":
            return "" if kinds[name] == "white_yellow_mug" else "it only puts the white and yellow mug in there"
        if not _placer(problem_parent(problem, predicate[2]), kinds, predicate[2]):
            return f"it does not know how to put things there; it knows {', '.join(PLACERS)} and tables"
        return ""
    if kind in ("open", "close"):
        parent = problem_parent(problem, name)
        category = kinds.get(parent, "")
        return "" if category in (*DRAWERS, "microwave") else f"it cannot {kind} that"
    return "" if kind in ("turnon", "turnoff") else "it does not know the predicate"


DRAWERS = ("wooden_cabinet", "white_cabinet")


def problem_parent(problem: Problem, name: str) -> str:
    """The object or fixture a name belongs to: itself, or the one its region is named after."""
    things = {**problem.objects, **problem.fixtures}
    return max((thing for thing in things if name == thing or name.startswith(f"{thing}_")), key=len, default="")


def next_predicate(state: PrivilegedState) -> Predicate | None:
    """The part of the goal to be worked on now; None when all of it holds."""
    open_ones = [predicate for predicate in state.goal if not state.holds(predicate)]
    targets = {state.parent(p[2]) or p[2] for p in state.goal if len(p) == 3}
    # what others are put on goes to its place first
    return min(open_ones, key=lambda p: (ORDER.index(p[0]), p[1] not in targets), default=None)


class Plan:
    """Turns one predicate of the goal into a skill.

    Args:
        motion: the hand.
    """

    def __init__(self, motion: Motion) -> None:
        self._motion = motion
        self._carriers: dict[str, Carrier] = {}
        self._drawers: dict[str, Drawer] = {}

    def skill(self, predicate: Predicate) -> Skill:
        """Works on one predicate; returns whether it went as planned."""
        kind, name = predicate[:2]
        if kind in ("on", "in"):
            return self._move(name, predicate[2])
        if kind == "turnon":
            return turn_knob(self._motion, name, KNOB_ON)
        if kind == "turnoff":
            return turn_knob(self._motion, name, KNOB_OFF)
        if self._motion.now().parent(name):
            drawer = self._drawer(name)
            return drawer.open() if kind == "open" else drawer.close()
        door = Door(self._motion, name)
        return door.open() if kind == "open" else door.close()

    def _drawer(self, region: str) -> Drawer:
        return self._drawers.setdefault(region, Drawer(self._motion, region))

    def _move(self, name: str, target: str) -> Skill:
        state = self._motion.now()
        parent = state.parent(target) or target
        if state.parent(target) and state.categories.get(parent) in DRAWERS and not target.endswith("_side"):
            drawer = self._drawer(target)
            if drawer.position() > DRAWER_ROOMY + 0.03:
                return drawer.open(DRAWER_ROOMY)
        if state.categories.get(name) == "plate" and _is_table(parent, state.categories, target):
            return slide_plate(self._motion, name, target)
        if state.categories.get(parent) == "microwave":
            return put_in(self._motion, name, parent)
        return self._carry(name, target, parent)

    def _carry(self, name: str, target: str, parent: str) -> Skill:
        carrier = self._carriers.setdefault(name, Carrier(self._motion, name))
        placer = _placer(parent, self._motion.now().categories, target)
        assert placer is not None, "check_supported has looked"
        try:
            picked = yield from carrier.pick()
        except NoGraspError:  # it fell over: no way to hold it from above
            yield from self._motion.stay(10, OPEN)
            return False
        if not picked:
            yield from carrier.retreat()
            return False
        placement = placer(self._motion.now, name, target)
        done = yield from carrier.place(placement)
        yield from carrier.retreat(placement.retreat)
        return done


# --- where things go -------------------------------------------------------------------------------------------

Now = Callable[[], PrivilegedState]
Placer = Callable[[Now, str, str], Placement]


def _bottom(state: PrivilegedState, name: str) -> float:
    """How far an object reaches below its origin [m]."""
    return float(state.position_world(name)[2] - state.boxes(name).corners()[:, :, 2].min())


def _middle(state: PrivilegedState, name: str) -> Vector:
    """From an object's origin to the middle of its extent, horizontally, in world: (3,) [m]."""
    corners = state.boxes(name).corners().reshape(-1, 3)
    middle: Vector = (corners.max(axis=0) + corners.min(axis=0)) / 2 - state.position_world(name)
    middle[2] = 0.0
    return middle


def _on_plate(now: Now, name: str, target: str) -> Placement:
    return Placement(goal=lambda: now().position_world(target) + UP * 0.020, above=0.12, level=True)


def _in_bowl(now: Now, name: str, target: str) -> Placement:
    """Let go above the rim: the open fingers do not fit inside."""
    return Placement(goal=lambda: now().position_world(target) + UP * 0.045, above=0.10)


def _on_cook_region(now: Now, name: str, target: str) -> Placement:
    """In the middle; where another thing stands or is to stand, to one side: two moka pots' handles would collide."""
    state = now()
    depth = _bottom(state, name)
    others = [p[1] for p in state.goal if len(p) == 3 and p[2] == target and p[1] != name]
    aside = np.zeros(3)
    for other in others:
        offset = state.position_world(other) - state.position_world(target)
        stands = bool(np.all(np.abs(offset[:2]) < 0.075)) and offset[2] < 0.12
        aside[0] = BESIDE if not stands or offset[0] < 0 else -BESIDE
    return Placement(goal=lambda: now().position_world(target) + aside + UP * (0.0255 + depth + 0.004), above=0.12)


def _on_top(now: Now, name: str, target: str) -> Placement:
    depth = _bottom(now(), name)
    return Placement(goal=lambda: now().position_world(target) + UP * (depth + 0.006), above=0.08)


def _on_rack(now: Now, name: str, target: str) -> Placement:
    return Placement(goal=lambda: now().position_world(target) + UP * 0.005, above=0.06)


def _on_table(now: Now, name: str, target: str) -> Placement:
    depth = _bottom(now(), name)
    return Placement(goal=lambda: now().position_world(target) + UP * (depth + 0.004), above=0.03)


def _in_basket(now: Now, name: str, target: str) -> Placement:
    state = now()
    depth = _bottom(state, name)
    place = np.zeros(3)
    for other in state.names:  # beside what is in it
        offset = state.position_world(other) - state.position_world(target)
        if other not in (name, state.parent(target)) and np.all(np.abs(offset) < 0.07):
            place = np.array([*-offset[:2], 0.0]) / max(0.01, float(np.linalg.norm(offset[:2]))) * 0.025
    site_z = state.position_world(target)[2]
    return Placement(
        goal=lambda: now().position_world(target) + place + UP * (depth + 0.02),
        above=0.10,
        hand_above=site_z + 0.073,
    )


def _in_tray(now: Now, name: str, target: str) -> Placement:
    state = now()
    above_origin = _bottom(state, name) + 0.013 + state.position_world(state.parent(target))[2]
    return Placement(
        goal=lambda: np.array([*now().position_world(target)[:2], above_origin]),
        above=0.12,  # over its walls, 8 cm
    )


def _in_drawer(now: Now, name: str, target: str) -> Placement:
    state = now()
    cabinet = state.parent(target)

    def goal() -> Vector:
        state = now()
        along = state.rotation_world(cabinet)
        floor = state.position_world(target)[2] - 0.0265
        place = state.position_world(cabinet) + along @ np.array([0.0033, DRAWER_MIDDLE, 0.0])
        return np.array([*place[:2], floor + 0.010])

    def turned() -> NDArray[np.float64]:
        return nearest_of_pair(gripper_down(now().rotation_world(cabinet)[:, 0]), now().eef_rotation_world)

    return Placement(goal=goal, above=0.11, turned=turned, retreat=0.15)


def _in_caddy(now: Now, name: str, target: str) -> Placement:
    """A book, turned until its thickness lies across the compartment."""
    state = now()
    depth = _bottom(state, name)

    def turned() -> NDArray[np.float64]:
        state = now()
        thickness, across = state.rotation_world(name)[:, 0], state.rotation_world(state.parent(target))[:, 0]
        angle = np.arctan2(thickness[0] * across[1] - thickness[1] * across[0], thickness @ across)
        angle = (angle + np.pi / 2) % np.pi - np.pi / 2
        return about(UP, float(angle)) @ state.eef_rotation_world

    def goal() -> Vector:
        state = now()
        place = state.position_world(target) - _middle(state, name)
        place[2] = state.position_world(state.parent(target))[2] + 0.0138 + depth + 0.010
        return place

    return Placement(goal=goal, above=0.16, turned=turned, alignment=0.004, lowering=0.4, retreat=0.12)


PLACERS: dict[str, Placer] = {
    "plate": _on_plate,
    "akita_black_bowl": _in_bowl,
    "cook_region": _on_cook_region,
    "top_side": _on_top,
    "wine_rack": _on_rack,
    "basket": _in_basket,
    "drawer": _in_drawer,
    "desk_caddy": _in_caddy,
    "wooden_tray": _in_tray,
}
"""Kind of place → how a thing is put there."""


def _is_table(parent: str, kinds: dict[str, str], target: str) -> bool:
    category = kinds.get(parent, "")
    return category.endswith("table") or (not category and target.endswith("_region"))


def _placer(parent: str, kinds: dict[str, str], target: str) -> Placer | None:
    category = kinds.get(parent, "")
    if target.endswith("_top_side"):
        return PLACERS["top_side"]
    if target.endswith("_cook_region"):
        return PLACERS["cook_region"]
    if category in DRAWERS:
        return PLACERS["drawer"]
    if _is_table(parent, kinds, target):
        return _on_table
    return PLACERS.get(category)
