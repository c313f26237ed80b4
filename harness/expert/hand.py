"""The shape of the hand, and how near it comes to things. Lengths in metres, in the grip site's frame (x: finger axis, z: ahead)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from tasks.boxes import Boxes
from tasks.interface import PrivilegedState

MAX_OPENING = 0.078
"""Between the finger pads, fully open."""
TIP = 0.009
"""From the grip site to the ends of the fingers."""
PAD_ABOVE, PAD_BELOW = 0.012, 0.004
"""The finger pads reach from this much behind the grip site to this much ahead of it."""
FINGER_THICKNESS = 0.026
"""Along the finger axis: the outer face of an open finger is at half the opening plus this."""
HAND_FACE = 0.031
"""From the grip site back to the hand's lower face."""
FAR = 0.10
"""Distances from here on count as this."""
SPACING = 0.015
"""Of the points that stand for an obstacle: less than a finger's width."""


def _aligned(spans: list[tuple[float, float, float, float, float, float]]) -> Boxes:
    """Boxes along the axes from (x0, x1, y0, y1, z0, z1)."""
    ends = np.array(spans).reshape(-1, 3, 2)
    return Boxes(
        centres=ends.mean(axis=2),
        axes=np.tile(np.eye(3), (len(spans), 1, 1)),
        half_sizes=(ends[:, :, 1] - ends[:, :, 0]) / 2,
    )


def hand_boxes(opening: float) -> Boxes:
    """The hand with its fingers `opening` [m] apart, in the grip site's frame."""
    inner, outer = opening / 2, opening / 2 + FINGER_THICKNESS
    return _aligned(
        [
            (inner, outer, -0.010, 0.010, -HAND_FACE, TIP),
            (-outer, -inner, -0.010, 0.010, -HAND_FACE, TIP),
            (-0.100, 0.100, -0.032, 0.032, -0.097, -HAND_FACE),
            (-0.050, 0.050, -0.050, 0.050, -0.200, -0.097),  # the flange and the last link
        ]
    )


OPEN_HAND, CLOSED_HAND = hand_boxes(MAX_OPENING), hand_boxes(0.0)


def joined(parts: list[Boxes]) -> Boxes:
    """All boxes of all parts."""
    return Boxes(
        centres=np.concatenate([part.centres for part in parts] or [np.empty((0, 3))]),
        axes=np.concatenate([part.axes for part in parts] or [np.empty((0, 3, 3))]),
        half_sizes=np.concatenate([part.half_sizes for part in parts] or [np.empty((0, 3))]),
    )


def in_frame(boxes: Boxes, position: NDArray[np.float64], rotation: NDArray[np.float64]) -> Boxes:
    """World boxes as seen from a frame at `position` (3,) with `rotation` (3, 3)."""
    return Boxes(
        centres=(boxes.centres - position) @ rotation, axes=rotation.T @ boxes.axes, half_sizes=boxes.half_sizes
    )


def obstacles(state: PrivilegedState, except_for: Collection[str] = ()) -> NDArray[np.float64]:
    """Points (p, 3) in world on the collision geometry of all objects and fixtures but some. Tables are not in it.

    Points rather than boxes, because much of it is plates a few millimetres thin, which points on the hand would straddle.
    """
    boxes = joined([state.boxes(name) for name in state.names if name not in except_for])
    points = [np.empty((0, 3))]
    for centre, axes, half in zip(boxes.centres, boxes.axes, boxes.half_sizes, strict=True):
        sides = [np.linspace(-h, h, 2 + int(2 * h / SPACING)) for h in half]
        points.append(centre + np.array(np.meshgrid(*sides)).reshape(3, -1).T @ axes.T)
    return np.concatenate(points)


def clearance(
    hand: Boxes, position: NDArray[np.float64], rotation: NDArray[np.float64], points: NDArray[np.float64]
) -> float:
    """The least distance [m] of obstacle `points` (p, 3) in world from the hand at a pose; negative inside, at most `FAR`.

    Args:
        hand: in the grip site's frame.
    """
    local = (points - position) @ rotation
    reach = np.einsum("nij,nj->ni", np.abs(hand.axes), hand.half_sizes)
    low, high = (hand.centres - reach).min(axis=0) - FAR, (hand.centres + reach).max(axis=0) + FAR
    local = local[((local > low) & (local < high)).all(axis=1)]
    return min(FAR, float(hand.distances(local).min(initial=FAR)))
