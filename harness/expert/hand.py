"""The shape of the hand, and how near it comes to things. Lengths in metres, in the grip site's frame (x: finger axis, z: ahead)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from tasks.interface import Boxes, PrivilegedState

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


def _grid(x: list[float], y: list[float], z: list[float]) -> NDArray[np.float64]:
    return np.array(np.meshgrid(x, y, z)).reshape(3, -1).T


_PALM = np.concatenate(
    [
        _grid([-0.100, -0.050, 0.0, 0.050, 0.100], [-0.032, 0.0, 0.032], [-HAND_FACE, -0.065, -0.095]),
        _grid([-0.045, 0.045], [-0.045, 0.045], [-0.14, -0.19]),  # the flange and the last link
    ]
)


def hand_points(opening: float) -> NDArray[np.float64]:
    """Points (p, 3) on the hand, with its fingers `opening` [m] apart."""
    inner, outer = opening / 2, opening / 2 + FINGER_THICKNESS
    side = [inner, (inner + outer) / 2, outer]
    fingers = _grid([*side, *(-x for x in side)], [-0.010, 0.010], [TIP, 0.0, -0.015])
    return np.concatenate([fingers, _PALM])


OPEN_HAND, CLOSED_HAND = hand_points(MAX_OPENING), hand_points(0.0)


def obstacles(state: PrivilegedState, except_for: Collection[str] = ()) -> Boxes:
    """Collision geometry of all objects and fixtures but some. Tables are not in it."""
    parts = [state.boxes(name) for name in state.names if name not in except_for]
    return Boxes(
        centres=np.concatenate([part.centres for part in parts] or [np.empty((0, 3))]),
        axes=np.concatenate([part.axes for part in parts] or [np.empty((0, 3, 3))]),
        half_sizes=np.concatenate([part.half_sizes for part in parts] or [np.empty((0, 3))]),
    )


def near(boxes: Boxes, low: NDArray[np.float64], high: NDArray[np.float64]) -> Boxes:
    """Those boxes that may reach into the world-aligned box from `low` to `high`, (3,) each."""
    reach = np.einsum("nij,nj->ni", np.abs(boxes.axes), boxes.half_sizes)
    kept = ((boxes.centres + reach > low) & (boxes.centres - reach < high)).all(axis=1)
    return Boxes(centres=boxes.centres[kept], axes=boxes.axes[kept], half_sizes=boxes.half_sizes[kept])


def clearance(
    points: NDArray[np.float64], position: NDArray[np.float64], rotation: NDArray[np.float64], boxes: Boxes
) -> float:
    """The least distance [m] of `points` (p, 3), in the grip site's frame, from `boxes` with the hand at a pose; negative inside.

    Boxes further than 0.15 m from all points count as 0.15 m away.
    """
    world = position + points @ rotation.T
    close = near(boxes, world.min(axis=0) - 0.15, world.max(axis=0) + 0.15)
    return min(0.15, float(close.distances(world).min()))
