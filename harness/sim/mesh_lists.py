"""Draws meshes in pieces: a GL display list per piece, and one per mesh that calls those wanted.

MuJoCo records a mesh's triangles in one display list and calls it by number. Here it is made to record each piece as well, with its
own code (`mjr_uploadMesh`, on a mesh whose face range is the piece's), so that every vertex, normal and texture coordinate has the
same bits; the number it calls then stands for a short list of calls that changes with the view.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.culling import Pieces
from harness.sim.stack import mujoco


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
        self._rows = {
            int(mesh): np.flatnonzero(pieces.mesh == mesh) for mesh in np.unique(pieces.mesh[pieces.mesh >= 0])
        }
        self._lists = np.zeros(len(pieces.mesh), dtype=np.uint32)
        for mesh, rows in self._rows.items():
            if len(rows) > 1:
                self._record(model, context, mesh, pieces, rows)
        self._callers = int(GL.glGenLists(2 * model.nmesh))  # MuJoCo counts a mesh and its convex hull
        context.baseMesh = self._callers
        self._shown: dict[int, bytes] = {}
        self.show(np.ones(len(pieces.mesh), dtype=bool))

    def _record(self, model: Any, context: Any, mesh: int, pieces: Pieces, rows: NDArray[np.int64]) -> None:
        """Display lists of one mesh's pieces."""
        start, count, hull = (
            int(field[mesh]) for field in (model.mesh_faceadr, model.mesh_facenum, model.mesh_graphadr)
        )
        first_list = int(self._gl.glGenLists(2 * len(rows)))
        model.mesh_graphadr[mesh] = -1  # no convex hull
        for number, row in enumerate(rows):
            self._lists[row] = first_list + 2 * number
            context.baseMesh = int(self._lists[row]) - 2 * mesh
            model.mesh_faceadr[mesh] = start + pieces.first_face[row]
            model.mesh_facenum[mesh] = pieces.triangles[row]
            mujoco.mjr_uploadMesh(model, context, mesh)
        context.baseMesh = self._whole
        model.mesh_faceadr[mesh], model.mesh_facenum[mesh], model.mesh_graphadr[mesh] = start, count, hull

    def show(self, wanted: NDArray[np.bool_]) -> None:
        """Choose the pieces (n,) that are drawn."""
        for mesh, rows in self._rows.items():
            choice = wanted[rows]
            key = choice.tobytes()
            if self._shown.get(mesh) == key or not choice.any():
                continue
            self._gl.glNewList(self._callers + 2 * mesh, self._gl.GL_COMPILE)
            if choice.all():
                self._gl.glCallList(self._whole + 2 * mesh)
            else:
                lists = self._lists[rows[choice]]
                self._gl.glCallLists(len(lists), self._gl.GL_UNSIGNED_INT, lists)
            self._gl.glEndList()
            self._shown[mesh] = key
