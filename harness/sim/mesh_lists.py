"""Draws meshes in pieces: a GL display list per piece, and one per mesh that calls those wanted.

MuJoCo records a mesh's triangles in one display list and calls it by number. Here it is made to record each piece as well, with its
own code (`mjr_uploadMesh`, on a mesh whose face range is the piece's), so that every vertex, normal and texture coordinate has the
same bits; the number it calls then stands for a short list of calls that changes with the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.culling import Pieces
from harness.sim.stack import mujoco


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Recorded:
    """One mesh's pieces."""

    rows: NDArray[np.int64]
    """Of `Pieces`, those of all geoms that draw the mesh."""
    number: NDArray[np.int64]
    """Of each row, its place in `lists`."""
    lists: NDArray[np.uint32]
    """A display list each, in the order of the mesh's faces."""


class MeshLists:
    """The display lists of one context.

    Args:
        model: mujoco's.
        context: mujoco's `MjrContext`, current; its meshes are drawn through this object from now on.
        pieces: what can be left out.
    """

    def __init__(self, model: Any, context: Any, pieces: Pieces) -> None:
        from OpenGL import GL

        self._gl = GL
        self._whole = int(context.baseMesh)
        self._meshes = {int(mesh): self._record(model, context, mesh, pieces) for mesh in _distinct(pieces.mesh)}
        self._callers = int(GL.glGenLists(2 * model.nmesh))  # MuJoCo counts a mesh and its convex hull
        context.baseMesh = self._callers
        self._shown: dict[int, bytes] = {}
        self.show(np.ones(len(pieces.mesh), dtype=bool))

    def _record(self, model: Any, context: Any, mesh: int, pieces: Pieces) -> _Recorded:
        """The display lists of one mesh's pieces, which several geoms may share."""
        rows = np.flatnonzero(pieces.mesh == mesh)
        _, example, number = np.unique(pieces.first_face[rows], return_index=True, return_inverse=True)
        lists = int(self._gl.glGenLists(2 * len(example))) + 2 * np.arange(len(example), dtype=np.uint32)
        start, count, hull = (
            int(field[mesh]) for field in (model.mesh_faceadr, model.mesh_facenum, model.mesh_graphadr)
        )
        model.mesh_graphadr[mesh] = -1  # no convex hull
        for name, row in zip(lists, rows[example], strict=True):
            context.baseMesh = int(name) - 2 * mesh
            model.mesh_faceadr[mesh] = start + pieces.first_face[row]
            model.mesh_facenum[mesh] = pieces.triangles[row]
            mujoco.mjr_uploadMesh(model, context, mesh)
        context.baseMesh = self._whole
        model.mesh_faceadr[mesh], model.mesh_facenum[mesh], model.mesh_graphadr[mesh] = start, count, hull
        return _Recorded(rows=rows, number=number, lists=lists)

    def show(self, wanted: NDArray[np.bool_]) -> None:
        """Choose the pieces (n,) that are drawn. Geoms that share a mesh are all drawn with what any of them needs."""
        for mesh, recorded in self._meshes.items():
            choice = np.zeros(len(recorded.lists), dtype=bool)
            choice[recorded.number[wanted[recorded.rows]]] = True
            key = choice.tobytes()
            if self._shown.get(mesh) == key or not choice.any():
                continue
            self._gl.glNewList(self._callers + 2 * mesh, self._gl.GL_COMPILE)
            if choice.all():
                self._gl.glCallList(self._whole + 2 * mesh)
            else:
                lists = recorded.lists[choice]  # in the order of the faces
                self._gl.glCallLists(len(lists), self._gl.GL_UNSIGNED_INT, lists)
            self._gl.glEndList()
            self._shown[mesh] = key


def _distinct(meshes: NDArray[np.int64]) -> list[int]:
    return [int(mesh) for mesh in np.unique(meshes) if mesh >= 0]
