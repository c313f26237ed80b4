"""Sliding a plate over the table with the fingers spread inside it. Lengths in metres.

Pushed on one side, a plate tilts on its small base and sticks; its slope is too flat to be lifted by. Spread against the slope on
both sides, the fingers press it flat and take it along.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from harness.expert.grasps import COMFORTABLE_REACH
from harness.expert.hand import obstacles
from harness.expert.motion import CAREFUL, CARRYING, FREE, PATIENCE_STEPS, Action, Motion, Skill
from harness.expert.servo import CLOSED, OPEN, UP, Vector, gripper_down, nearest_of_pair

ABOVE_ORIGIN = 0.0155
"""End effector above the plate's origin: the fingertips 1 mm above its base."""
STRIDE = 0.018
"""How far ahead the hand is commanded: its speed."""
PRESS = 0.005
"""How much deeper the hand is commanded while it slides."""
PLATE_RADIUS = 0.077
ROOM = 0.010
"""Distance that the plate keeps from other things where it can."""
ARRIVED = 0.010

Point = NDArray[np.float64]
"""(2,)"""


def slide_plate(motion: Motion, plate: str, region: str) -> Skill:
    """Take a plate into a region of the table, around what stands there; returns whether it arrived."""
    now = motion.now
    way = _way(motion, plate, region)
    motion.rotation = _along(motion, plate, way[0])

    def inside(height: float) -> Vector:
        return now().position_world(plate) + UP * height

    yield from motion.travel(lambda: inside(0.10), CLOSED, FREE, 0.012, turn_tolerance=0.1)
    for waypoint in way:
        motion.rotation = _along(motion, plate, waypoint)
        yield from motion.go(lambda: inside(ABOVE_ORIGIN + 0.01), CLOSED, CAREFUL, 0.008, turn_tolerance=0.15)
        yield from motion.go(lambda: inside(ABOVE_ORIGIN), CLOSED, CAREFUL, motion.grasp_tolerance)
        motion.presses = True
        yield from motion.stay(7, OPEN)
        yield from _drag(motion, plate, waypoint)
        motion.presses = False
        yield from motion.stay(5, CLOSED)
    away = now().eef_position_world + UP * 0.10
    yield from motion.go(lambda: away, CLOSED, CAREFUL, 0.015)
    return now().holds(("on", plate, region))


def _drag(motion: Motion, plate: str, waypoint: Point) -> Iterator[Action]:
    """Until the plate is there, or does not come along."""
    best, waited = np.inf, 0
    while waited < PATIENCE_STEPS:
        left = float(np.linalg.norm(waypoint - motion.now().position_world(plate)[:2]))
        if left < ARRIVED:
            return
        best, waited = (left, 0) if left < best - 0.001 else (best, waited + 1)
        yield motion.toward(_hand_for(motion, plate, waypoint), OPEN, CARRYING)


def _hand_for(motion: Motion, plate: str, waypoint: Point) -> Vector:
    """Where the hand must be for the plate to be at a waypoint."""
    state = motion.now()
    place = state.eef_position_world
    left = waypoint - state.position_world(plate)[:2]
    place[:2] += left * min(1.0, STRIDE / max(1e-9, float(np.linalg.norm(left))))  # the press must not be scaled down
    place[2] = state.position_world(plate)[2] + ABOVE_ORIGIN - PRESS
    return place


def _along(motion: Motion, plate: str, waypoint: Point) -> NDArray[np.float64]:
    """The hand pointing down (3, 3), its fingers along the way: across it they slide over the slope."""
    state = motion.now()
    axis = np.array([*(waypoint - state.position_world(plate)[:2]), 0.0])
    return nearest_of_pair(gripper_down(axis), state.eef_rotation_world)


def _way(motion: Motion, plate: str, region: str) -> list[Point]:
    """One or two waypoints (2,): the shortest way on which the plate keeps clear of things."""
    state = motion.now()
    start, middle = state.position_world(plate)[:2], state.position_world(region)[:2]
    inset = state.half_extent_world(region)[:2] - 0.015
    points = obstacles(state, except_for=(plate,))
    low = points[points[:, 2] < state.position_world(plate)[2] + 0.05][:, :2]

    def cost(way: list[Point]) -> float:
        total = 0.0
        for a, b in itertools.pairwise([start, *way]):
            room = _distance(a, b, low) - PLATE_RADIUS
            stretch = float(np.linalg.norm(b - state.base_position_world[:2])) - COMFORTABLE_REACH
            total += float(np.linalg.norm(b - a)) + max(0.0, ROOM - room) * 20.0 + max(0.0, stretch) * 10.0
        return total

    steps = np.linspace(-1.0, 1.0, 5)
    goals = [middle + inset * np.array(at) for at in itertools.product(steps, steps)]
    corner, span = np.minimum(start, middle) - 0.15, np.abs(middle - start) + 0.30
    vias = [corner + span * np.array(at) for at in itertools.product(np.linspace(0, 1, 9), repeat=2)]
    return min([[goal] for goal in goals] + [[via, goal] for via in vias for goal in goals], key=cost)


def _distance(a: Point, b: Point, points: NDArray[np.float64]) -> float:
    """Of the nearest of `points` (n, 2) from the segment from a to b; infinite without points."""
    along = b - a
    share = np.clip((points - a) @ along / max(1e-9, float(along @ along)), 0.0, 1.0)
    return float(np.linalg.norm(points - a - share[:, None] * along, axis=1).min(initial=np.inf))
