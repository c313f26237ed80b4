"""Which parts of a scene a camera cannot show, so that leaving them out changes no pixel.

Nearly all of a LIBERO image's time goes into the triangles of detailed meshes (300,000 for bowls, cans and robot links of a few
pixels each), drawn once, and a second time, mirrored, where the stove's plate reflects. Meshes are cut into pieces of consecutive
triangles, and a piece is left out only where its bounding box lies outside the view, or behind the face of an opaque box that
fills the view (the table under the wrist camera), with a millimetre and two pixels to spare. The order of what is drawn stays,
because it decides where two triangles are equally far away.

Mirrors are why that alone would not be exact: MuJoCo draws the reflection in the first reflective geom of a scene, whatever lies
in its mirrored view, and turns the others dull (`mjr_render` in render_gl3.c). So where the mirror is in view, the image may be
drawn in two parts: the rectangle around the mirror with all that is visible there, directly or reflected; and the rest of the image
without a reflection pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.stack import mujoco

HIDDEN_GROUP = 5
"""A geom group that LIBERO draws nothing of."""
MAX_SCENE_GEOMS = 1000
"""Room in robosuite's scene."""
PIECE_TRIANGLES = 512
MARGIN_M = 1e-3
MARGIN_PX = 2
_OPAQUE = 0.995
"""MuJoCo sorts what is less opaque by distance."""
_TRIANGLES_OF_A_PRIMITIVE = 500
_TRIANGLES_OF_A_DRAWING = 20_000
"""What clearing, set-up and reading back cost, in triangles."""
_CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangle:
    """Pixels of an image, rows counted from the bottom as OpenGL does; ends are exclusive."""

    left: int
    right: int
    bottom: int
    top: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pieces:
    """What a model draws, in pieces: runs of a mesh's triangles, or whole primitives."""

    geom: NDArray[np.int64]
    """(n,) the geom it belongs to; ascending."""
    mesh: NDArray[np.int64]
    """(n,) the mesh; -1 for a primitive."""
    first_face: NDArray[np.int64]
    """(n,) of the mesh's faces."""
    triangles: NDArray[np.int64]
    """(n,) how many it has."""
    centre: NDArray[np.float64]
    """(n, 3) of its bounding box, in the geom's frame [m]."""
    half: NDArray[np.float64]
    """(n, 3) half its bounding box's sides [m]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One drawing of the scene, of which a rectangle is kept."""

    geoms: NDArray[np.bool_]
    """(ngeom,) which are drawn."""
    pieces: NDArray[np.bool_]
    """(pieces,) which are; those of other geoms do not matter."""
    reflections: bool
    """Whether the mirror's reflection is drawn."""
    area: Rectangle


def cut_into_pieces(model: Any, drawn: NDArray[np.bool_]) -> Pieces:
    """The pieces of the geoms that are drawn."""
    rows: list[tuple[int, int, int, int]] = []
    boxes: list[NDArray[np.float64]] = []
    for geom in np.flatnonzero(drawn).tolist():
        kind = model.geom_type[geom]
        mesh = int(model.geom_dataid[geom]) if kind == mujoco.mjtGeom.mjGEOM_MESH else -1
        if mesh < 0:
            plane = np.array([[0.0, 0.0, 0.0, *model.geom_size[geom, :2], 0.0]])
            boxes.append(plane if kind == mujoco.mjtGeom.mjGEOM_PLANE else model.geom_aabb[geom][None])
            rows.append((geom, -1, 0, _TRIANGLES_OF_A_PRIMITIVE))
            continue
        start, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        corners = model.mesh_vert[model.mesh_vertadr[mesh] + model.mesh_face[start : start + count]].astype(np.float64)
        first = np.arange(0, count, PIECE_TRIANGLES)
        low = np.minimum.reduceat(corners.min(axis=1), first)
        high = np.maximum.reduceat(corners.max(axis=1), first)
        rows += [(geom, mesh, face, min(PIECE_TRIANGLES, count - face)) for face in first.tolist()]
        boxes.append(np.concatenate([(low + high) / 2, (high - low) / 2], axis=1))
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    box = np.concatenate([np.zeros((0, 6)), *boxes])
    return Pieces(
        geom=table[:, 0],
        mesh=table[:, 1],
        first_face=table[:, 2],
        triangles=table[:, 3],
        centre=box[:, :3],
        half=box[:, 3:],
    )


class Culling:
    """Decides what to draw for one model.

    Args:
        model: mujoco's.
        drawn: (ngeom,) bool, the geoms that stock draws.
        pieces: theirs.
        size_px: height and width of the images.
    """

    def __init__(self, model: Any, drawn: NDArray[np.bool_], pieces: Pieces, size_px: int) -> None:
        self._model = model
        self._size_px = size_px
        self._pieces = pieces
        alpha = np.append(model.mat_rgba[:, 3], 1.0)[model.geom_matid]  # -1, the last: without a material
        reflectance = np.append(model.mat_reflectance, 0.0)[model.geom_matid]
        opaque = np.minimum(alpha, model.geom_rgba[:, 3]) >= _OPAQUE
        is_plane = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
        flat = is_plane | (model.geom_type == mujoco.mjtGeom.mjGEOM_BOX)
        mirrors = np.flatnonzero(drawn & flat & (reflectance > 0))
        self._mirror = int(mirrors[0]) if len(mirrors) else -1  # the first one reflects
        mirror_sites = (model.mat_reflectance[model.site_matid[model.site_matid >= 0]] > 0).any()
        self.whole = Part(
            geoms=drawn,
            pieces=np.ones(len(pieces.geom), dtype=bool),
            reflections=bool(mirror_sites or self._mirror >= 0),
            area=_whole(size_px),
        )
        """The scene as stock draws it."""
        self.possible = bool(
            not model.light_castshadow.any()  # a shadow falls from outside the view
            and opaque[mirrors].all()  # a transparent one does not reflect
            and (self._mirror < 0 or not is_plane[self._mirror])  # an infinite mirror is everywhere
            and not mirror_sites  # sites are always drawn
            and drawn.sum() + model.nsite < MAX_SCENE_GEOMS  # MuJoCo drops what is too many
        )
        """Whether anything may be left out: these conditions hold in every task of LIBERO."""
        always = ~opaque | (is_plane & (model.geom_size[:, :2] == 0).any(axis=1))  # sorted by distance; infinite
        if self._mirror >= 0:
            always[self._mirror] = True
        is_box = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
        self._occluders = np.flatnonzero(drawn & is_box & opaque & (np.arange(model.ngeom) != self._mirror))
        self._always = always[pieces.geom]

    def parts(self, data: Any, camera: int) -> list[Part]:
        """What to draw for one image, to be laid over each other in this order.

        Args:
            data: mujoco's, with the kinematics of what is drawn.
            camera: its id.
        """
        whole = self.whole.area
        if not self.possible:
            return [self.whole]
        view = _View(self._model, data, camera, self._size_px)
        direct = self._touching(data, self._seen(data, view, whole))
        area = self._mirror_area(data, view)
        if area is None:
            return [self._part(direct, reflections=False, area=whole)]
        mirror = self._mirror_plane(data)
        mirrored_view = np.concatenate(
            [reflected(view.planes(area), mirror), mirror[None]]
        )  # what lies below is clipped
        near_mirror = self._touching(data, self._seen(data, view, area)) | self._touching(data, mirrored_view)
        cost_apart = self._cost(direct) + 2 * self._cost(near_mirror) + _TRIANGLES_OF_A_DRAWING
        if cost_apart < 2 * self._cost(direct | near_mirror):
            return [
                self._part(direct, reflections=False, area=whole),
                self._part(near_mirror, reflections=True, area=area),
            ]
        return [self._part(direct | near_mirror, reflections=True, area=whole)]

    def _part(self, pieces: NDArray[np.bool_], *, reflections: bool, area: Rectangle) -> Part:
        geoms = np.zeros(self._model.ngeom, dtype=bool)
        geoms[self._pieces.geom[pieces]] = True
        return Part(geoms=geoms, pieces=pieces, reflections=reflections, area=area)

    def _cost(self, pieces: NDArray[np.bool_]) -> int:
        return int(self._pieces.triangles[pieces].sum())

    def _touching(self, data: Any, planes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(pieces,) whether a bounding box may reach into the convex region inside all planes [k, 4]."""
        rotation = data.geom_xmat.reshape(-1, 3, 3)
        normals = np.swapaxes(rotation, 1, 2) @ planes[:, :3].T  # [ngeom, 3, k], in each geom's frame
        offsets = data.geom_xpos @ planes[:, :3].T + planes[:, 3]  # [ngeom, k]
        mine = normals[self._pieces.geom]  # [n, 3, k]
        nearest = (
            np.einsum("pi,pik->pk", self._pieces.centre, mine)
            + np.einsum("pi,pik->pk", self._pieces.half, np.abs(mine))
            + offsets[self._pieces.geom]
        )
        return (nearest > -MARGIN_M).all(axis=1) | self._always

    def _seen(self, data: Any, view: _View, area: Rectangle) -> NDArray[np.float64]:
        """Planes [k, 4] around what can be seen in an image area: the view's, and the face of a box that fills it."""
        planes = view.planes(area)
        rays = view.corner_rays(area)  # [4, 3]
        rotation = data.geom_xmat[self._occluders].reshape(-1, 3, 3)
        size = self._model.geom_size[self._occluders]
        eyes = np.einsum(
            "gji,gj->gi", rotation, view.position - data.geom_xpos[self._occluders]
        )  # in the boxes' frames
        for box, axis in zip(*np.nonzero(np.abs(eyes) > size + MARGIN_M), strict=True):
            side = np.sign(eyes[box, axis])
            local = rays @ rotation[box]  # [4, 3]
            towards = -side * local[:, axis]
            if (towards <= 0).any():
                continue
            reach = (side * eyes[box, axis] - size[box, axis]) / towards  # [4], in ray lengths of 1 m along the view
            hits = eyes[box] + reach[:, None] * local
            others = [k for k in range(3) if k != axis]
            fills = (np.abs(hits[:, others]) < size[box, others] - MARGIN_M).all() and (reach > view.near_m).all()
            if fills:
                normal = side * rotation[box][:, axis]
                face = data.geom_xpos[self._occluders[box]] + size[box, axis] * normal
                return np.concatenate([planes, [[*normal, -normal @ face]]])
        return planes

    def _mirror_plane(self, data: Any) -> NDArray[np.float64]:
        """(4,) the plane MuJoCo mirrors in, a box's upper side: normal, and offset."""
        normal = data.geom_xmat[self._mirror].reshape(3, 3)[:, 2]
        offset = -normal @ data.geom_xpos[self._mirror] - self._model.geom_size[self._mirror, 2]
        return np.append(normal, offset)

    def _mirror_area(self, data: Any, view: _View) -> Rectangle | None:
        """The pixels that the mirror may cover; None where nothing is reflected into the image."""
        if self._mirror < 0:
            return None
        plane = self._mirror_plane(data)
        if plane[:3] @ view.position + plane[3] < -MARGIN_M:
            return None  # seen from behind
        offsets = (_CORNERS * self._model.geom_size[self._mirror]) @ data.geom_xmat[self._mirror].reshape(3, 3).T
        return view.bounds(data.geom_xpos[self._mirror] + offsets)


def reflected(planes: NDArray[np.float64], mirror: NDArray[np.float64]) -> NDArray[np.float64]:
    """Planes [k, 4] as seen in a mirror (4,): normals of length 1 in `mirror`, any in `planes`."""
    normal, offset = mirror[:3], mirror[3]
    along = planes[:, :3] @ normal  # [k]
    return np.concatenate(
        [planes[:, :3] - 2 * along[:, None] * normal, (planes[:, 3] - 2 * along * offset)[:, None]], axis=1
    )


def _whole(size_px: int) -> Rectangle:
    return Rectangle(left=0, right=size_px, bottom=0, top=size_px)


class _View:
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
        planes = self.planes(_whole(self._size_px))
        if ((points @ planes[:, :3].T + planes[:, 3]) < -MARGIN_M).all(axis=0).any():
            return None
        local = (points - self.position) @ self._axes_world
        if (local[:, 2] < self.near_m + MARGIN_M).any():
            return _whole(self._size_px)  # it reaches through the near plane
        pixels = (local[:, :2] / local[:, 2:] / self._slope + 1) / 2 * self._size_px  # [8, 2]
        low = np.clip(np.floor(pixels.min(axis=0)) - MARGIN_PX, 0, self._size_px).astype(int).tolist()
        high = np.clip(np.ceil(pixels.max(axis=0)) + MARGIN_PX, 0, self._size_px).astype(int).tolist()
        if low[0] >= high[0] or low[1] >= high[1]:
            return None
        return Rectangle(left=low[0], right=high[0], bottom=low[1], top=high[1])

    def _tangent(self, pixel: float) -> float:
        return float((2 * pixel / self._size_px - 1) * self._slope)
