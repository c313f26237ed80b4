"""The geometry of culling: what a camera's image area takes in, and what reaches into it.

The loops over pieces and boxes are compiled: with numpy they took as long as the drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import allocating

MARGIN_M = 1e-3
MARGIN_PX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangle:
    """Pixels of an image, rows counted from the bottom as OpenGL does; ends are exclusive."""

    left: int
    right: int
    bottom: int
    top: int


@allocating
def reaching_into(  # noqa: PLR0917 (compiled functions take arrays by position)
    planes: NDArray[np.float64],
    position: NDArray[np.float64],
    rotation: NDArray[np.float64],
    owner: NDArray[np.int64],
    centre: NDArray[np.float64],
    half: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(n,) whether a box may reach into the convex region inside all planes.

    Args:
        planes: (k, 4) normal inwards, and offset.
        position: (ngeom, 3) of the geoms in the world [m].
        rotation: (ngeom, 9) of theirs, row by row.
        owner: (n,) the geom that a box belongs to; equal ones stand together.
        centre, half: (n, 3) middle and half sides of the boxes in their geoms' frames [m].
    """
    reaches = np.ones(len(owner), dtype=np.bool_)
    local = np.empty((len(planes), 4))  # the planes in a geom's frame
    known = -1
    for box in range(len(owner)):
        geom = owner[box]
        if geom != known:
            known = geom
            for k in range(len(planes)):
                local[k, 3] = planes[k, 3]
                for i in range(3):
                    local[k, i] = 0.0
                    local[k, 3] += position[geom, i] * planes[k, i]
                    for j in range(3):
                        local[k, i] += rotation[geom, 3 * j + i] * planes[k, j]
        for k in range(len(planes)):
            nearest = local[k, 3]
            for i in range(3):
                nearest += centre[box, i] * local[k, i] + half[box, i] * abs(local[k, i])
            if nearest <= -MARGIN_M:
                reaches[box] = False
                break
    return reaches


@allocating
def face_that_fills(  # noqa: PLR0917 (compiled functions take arrays by position)
    rays: NDArray[np.float64],
    eye: NDArray[np.float64],
    near_m: float,
    boxes: NDArray[np.int64],
    position: NDArray[np.float64],
    rotation: NDArray[np.float64],
    size: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """The plane (4,) of a box's face that fills an image area, turned towards the eye; None if there is none.

    Args:
        rays: (4, 3) directions of the area's corners in the world, of length 1 m along the viewing direction.
        eye: (3,) [m].
        near_m: what is nearer along the viewing direction is not drawn.
        boxes: (n,) the geoms to look at.
        position, rotation, size: (ngeom, 3), (ngeom, 9), (ngeom, 3) of all geoms; size is half a box's sides [m].
    """
    for geom in boxes:
        turn = rotation[geom].copy().reshape(3, 3)  # box to world
        local_eye = (eye - position[geom]) @ turn
        local_rays = rays @ turn
        for axis in range(3):
            if abs(local_eye[axis]) <= size[geom, axis] + MARGIN_M:
                continue
            side = 1.0 if local_eye[axis] > 0 else -1.0
            fills = True
            for corner in range(4):
                towards = -side * local_rays[corner, axis]
                if towards <= 0:
                    fills = False
                    break
                reach = (side * local_eye[axis] - size[geom, axis]) / towards  # in ray lengths
                fills = reach > near_m
                for other in range(3):
                    hit = local_eye[other] + reach * local_rays[corner, other]
                    fills = fills and (other == axis or abs(hit) < size[geom, other] - MARGIN_M)
                if not fills:
                    break
            if fills:
                plane = np.empty(4)
                plane[:3] = side * turn[:, axis]
                plane[3] = -(plane[:3] @ position[geom]) - size[geom, axis]
                return plane
    return None


def reflected(planes: NDArray[np.float64], mirror: NDArray[np.float64]) -> NDArray[np.float64]:
    """Planes [k, 4] as seen in a mirror (4,): normals of length 1 in `mirror`, any in `planes`."""
    normal, offset = mirror[:3], mirror[3]
    along = planes[:, :3] @ normal  # [k]
    return np.concatenate(
        [planes[:, :3] - 2 * along[:, None] * normal, (planes[:, 3] - 2 * along * offset)[:, None]], axis=1
    )


def whole_image(size_px: int) -> Rectangle:
    return Rectangle(left=0, right=size_px, bottom=0, top=size_px)


class View:
    """A camera's geometry. Local coordinates: x right, y up, and the distance along the viewing direction."""

    def __init__(self, model: Any, data: Any, camera: int, size_px: int) -> None:
        self.position = data.cam_xpos[camera].copy()
        self._axes_world = data.cam_xmat[camera].reshape(3, 3) * (1.0, 1.0, -1.0)  # columns
        self._slope = np.tan(np.radians(model.cam_fovy[camera]) / 2)
        self.near_m = model.vis.map.znear * model.stat.extent
        self._size_px = size_px

    def planes(self, area: Rectangle) -> NDArray[np.float64]:
        """[5, 4] the planes that bound the pyramid over an image area, in the world: normal inwards, and offset."""
        left, right = self._tangent(area.left - MARGIN_PX), self._tangent(area.right + MARGIN_PX)
        bottom, top = self._tangent(area.bottom - MARGIN_PX), self._tangent(area.top + MARGIN_PX)
        local = np.array([(1, 0, -left), (-1, 0, right), (0, 1, -bottom), (0, -1, top), (0, 0, 1)], dtype=np.float64)
        normals = local @ self._axes_world.T
        offsets = -normals @ self.position
        offsets[4] -= self.near_m
        return np.concatenate([normals, offsets[:, None]], axis=1)

    def corner_rays(self, area: Rectangle) -> NDArray[np.float64]:
        """[4, 3] directions of the area's corners in the world, of length 1 m along the viewing direction."""
        left, right = self._tangent(area.left - MARGIN_PX), self._tangent(area.right + MARGIN_PX)
        bottom, top = self._tangent(area.bottom - MARGIN_PX), self._tangent(area.top + MARGIN_PX)
        return np.array([(x, y, 1.0) for x in (left, right) for y in (bottom, top)]) @ self._axes_world.T

    def bounds(self, points: NDArray[np.float64]) -> Rectangle | None:
        """The image area that holds points [8, 3] of the world, with a margin; None where they lie outside the image."""
        planes = self.planes(whole_image(self._size_px))
        if ((points @ planes[:, :3].T + planes[:, 3]) < -MARGIN_M).all(axis=0).any():
            return None
        local = (points - self.position) @ self._axes_world
        if (local[:, 2] < self.near_m + MARGIN_M).any():
            return whole_image(self._size_px)  # it reaches through the near plane
        pixels = (local[:, :2] / local[:, 2:] / self._slope + 1) / 2 * self._size_px  # [8, 2]
        low = np.clip(np.floor(pixels.min(axis=0)) - MARGIN_PX, 0, self._size_px).astype(int).tolist()
        high = np.clip(np.ceil(pixels.max(axis=0)) + MARGIN_PX, 0, self._size_px).astype(int).tolist()
        if low[0] >= high[0] or low[1] >= high[1]:
            return None
        return Rectangle(left=low[0], right=high[0], bottom=low[1], top=high[1])

    def _tangent(self, pixel: float) -> float:
        return float((2 * pixel / self._size_px - 1) * self._slope)
