"""Draws meshes in pieces: a GL display list per piece, and one per mesh and view that calls those wanted.

MuJoCo records a mesh's triangles in one display list and calls it by number. Here it is made to record each piece as well, with its
own code (`mjr_uploadMesh`, on a mesh whose face range is the piece's), so that every vertex, normal and texture coordinate has the
same bits; the number it calls then stands for a short list of calls. A camera sees nearly the same from one image to the next, so each
has such lists of its own, and only what has changed is written anew. A GPU draws a whole mesh faster from MuJoCo's one list of it; in
software that gains nothing and takes as much memory again, so there these lists are left empty (`without_whole_meshes`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.culling import Pieces
from harness.sim.stack import mujoco


@contextlib.contextmanager
def without_whole_meshes(model: Any) -> Iterator[None]:
    """Contexts of the model (mujoco's) that are made meanwhile have empty display lists in place of its meshes and their hulls."""
    counts, hulls = model.mesh_facenum.copy(), model.mesh_graphadr.copy()
    model.mesh_facenum[:], model.mesh_graphadr[:] = 0, -1
    try:
        yield
    finally:
        model.mesh_facenum[:], model.mesh_graphadr[:] = counts, hulls


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Callers:
    """One view's display lists: one per mesh, in MuJoCo's numbering."""

    base: int
    chosen: NDArray[np.bool_]
    """(lists,) which pieces they call; all False for a mesh that has none yet."""


class MeshLists:
    """The display lists of one context.

    Args:
        model: mujoco's.
        context: mujoco's `MjrContext`, current; its meshes are drawn through this object from now on.
        pieces: what can be left out.
        whole: whether the context has MuJoCo's lists of whole meshes.
    """

    def __init__(self, model: Any, context: Any, pieces: Pieces, *, whole: bool) -> None:
        from OpenGL import GL

        self._gl = GL
        self._context = context
        self._whole = int(context.baseMesh) if whole else None
        self._num_meshes = int(model.nmesh)
        self._meshes = np.unique(pieces.mesh[pieces.mesh >= 0])
        self._rows = np.flatnonzero(pieces.mesh >= 0)
        self._list_of_row = np.empty(len(self._rows), dtype=np.int64)
        names: list[NDArray[np.uint32]] = []
        starts = [0]
        for mesh in self._meshes.tolist():
            mine = pieces.mesh[self._rows] == mesh
            lists, number = self._record(model, mesh, pieces, self._rows[mine])
            self._list_of_row[mine] = starts[-1] + number
            names.append(lists)
            starts.append(starts[-1] + len(lists))
        self._names = np.concatenate([np.zeros(0, dtype=np.uint32), *names])
        """(lists,) a display list per different piece: mesh by mesh, each in the order of its faces."""
        self._starts = np.array(starts)
        self._callers: dict[Hashable, _Callers] = {}

    def _record(
        self, model: Any, mesh: int, pieces: Pieces, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """One mesh's display lists, and which of them each row of `pieces` is: several geoms may share a mesh."""
        _, example, number = np.unique(pieces.first_face[rows], return_index=True, return_inverse=True)
        lists = int(self._gl.glGenLists(2 * len(example))) + 2 * np.arange(len(example), dtype=np.uint32)
        start, count, hull = (
            int(field[mesh]) for field in (model.mesh_faceadr, model.mesh_facenum, model.mesh_graphadr)
        )
        model.mesh_graphadr[mesh] = -1  # no convex hull
        for name, row in zip(lists, rows[example], strict=True):
            self._context.baseMesh = int(name) - 2 * mesh
            model.mesh_faceadr[mesh] = start + pieces.first_face[row]
            model.mesh_facenum[mesh] = pieces.triangles[row]
            mujoco.mjr_uploadMesh(model, self._context, mesh)
        model.mesh_faceadr[mesh], model.mesh_facenum[mesh], model.mesh_graphadr[mesh] = start, count, hull
        return lists, number

    def show(self, wanted: NDArray[np.bool_], view: Hashable) -> None:
        """Choose the pieces (n,) that are drawn next. Geoms that share a mesh are all drawn with what any of them needs.

        Args:
            view: whatever names a sequence of similar choices; each has display lists of its own.
        """
        callers = self._callers.get(view)
        if callers is None:  # MuJoCo counts a mesh and its convex hull
            base = int(self._gl.glGenLists(2 * self._num_meshes))
            callers = self._callers[view] = _Callers(base=base, chosen=np.zeros(len(self._names), dtype=bool))
        self._context.baseMesh = callers.base
        if not len(self._names):
            return
        chosen = np.zeros(len(self._names), dtype=bool)
        chosen[self._list_of_row[wanted[self._rows]]] = True
        first = self._starts[:-1]
        drawn = np.logical_or.reduceat(chosen, first)
        changed = np.logical_or.reduceat(chosen != callers.chosen, first)
        for place in np.flatnonzero(drawn & changed).tolist():
            mine = slice(self._starts[place], self._starts[place + 1])
            self._write(callers.base, int(self._meshes[place]), self._names[mine], chosen[mine])
            callers.chosen[mine] = chosen[mine]

    def _write(self, base: int, mesh: int, names: NDArray[np.uint32], chosen: NDArray[np.bool_]) -> None:
        self._gl.glNewList(base + 2 * mesh, self._gl.GL_COMPILE)
        if self._whole is not None and chosen.all():
            self._gl.glCallList(self._whole + 2 * mesh)
        else:
            lists = names[chosen]
            self._gl.glCallLists(len(lists), self._gl.GL_UNSIGNED_INT, lists)
        self._gl.glEndList()
