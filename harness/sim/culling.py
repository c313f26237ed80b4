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
from harness.sim.view_volume import MARGIN_M, Rectangle, View, face_that_fills, reaching_into, reflected, whole_image

HIDDEN_GROUP = 5
"""A geom group that LIBERO draws nothing of."""
MAX_SCENE_GEOMS = 1000
"""Room in robosuite's scene."""
PIECE_TRIANGLES = 512
_OPAQUE = 0.995
"""MuJoCo sorts what is less opaque by distance."""
_TRIANGLES_OF_A_PRIMITIVE = 500
_TRIANGLES_OF_A_DRAWING = 20_000
"""What clearing, set-up and reading back cost, in triangles."""
_CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


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
            area=whole_image(size_px),
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
        view = View(self._model, data, camera, self._size_px)
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
        pieces = self._pieces
        touching = reaching_into(planes, data.geom_xpos, data.geom_xmat, pieces.geom, pieces.centre, pieces.half)
        return touching | self._always

    def _seen(self, data: Any, view: View, area: Rectangle) -> NDArray[np.float64]:
        """Planes [k, 4] around what can be seen in an image area: the view's, and the face of a box that fills it."""
        planes, rays = view.planes(area), view.corner_rays(area)
        sizes = self._model.geom_size
        face = face_that_fills(rays, view.position, view.near_m, self._occluders, data.geom_xpos, data.geom_xmat, sizes)
        return planes if face is None else np.concatenate([planes, face[None]])

    def _mirror_plane(self, data: Any) -> NDArray[np.float64]:
        """(4,) the plane MuJoCo mirrors in, a box's upper side: normal, and offset."""
        normal = data.geom_xmat[self._mirror].reshape(3, 3)[:, 2]
        offset = -normal @ data.geom_xpos[self._mirror] - self._model.geom_size[self._mirror, 2]
        return np.append(normal, offset)

    def _mirror_area(self, data: Any, view: View) -> Rectangle | None:
        """The pixels that the mirror may cover; None where nothing is reflected into the image."""
        if self._mirror < 0:
            return None
        plane = self._mirror_plane(data)
        if plane[:3] @ view.position + plane[3] < -MARGIN_M:
            return None  # seen from behind
        offsets = (_CORNERS * self._model.geom_size[self._mirror]) @ data.geom_xmat[self._mirror].reshape(3, 3).T
        return view.bounds(data.geom_xpos[self._mirror] + offsets)
