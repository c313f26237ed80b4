"""Renders LIBERO's cameras from a copy of the simulation's state, pixel for pixel as robosuite does.

Same MuJoCo calls and options as robosuite's render context, but: only geoms that can be seen (`culling`), textures from mapped files
(`textures`), no shadow map where no light casts shadows (a 64 MB depth texture), and an off-screen buffer of the image's size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.machine import return_freed_memory
from harness.sim.compiled import Compilation
from harness.sim.culling import HIDDEN_GROUP, MAX_SCENE_GEOMS, Culling, Part, cut_into_pieces
from harness.sim.gl import GlError, explain, make_gl_context, uses_egl
from harness.sim.mesh_lists import MeshLists, without_whole_meshes
from harness.sim.model_cache import Texture
from harness.sim.readback import Pending, Readback
from harness.sim.stack import mujoco
from harness.sim.textures import upload_textures
from tasks.interface import ImageConvention

_COMPILATION = Compilation("culling")


class Renderer:
    """Draws cameras of one model.

    Args:
        model: mujoco's.
        data: what to draw, mujoco's, with its kinematics; kept by reference.
        textures: pixels for which the model has stand-ins.
        size_px: height and width of an image.
        cull: leave out what cannot be seen; only tests turn it off.

    Raises:
        GlError: no GL context can be made; the message says what to install.
    """

    def __init__(
        self, model: Any, data: Any, textures: tuple[Texture, ...], size_px: int, *, cull: bool = True
    ) -> None:
        self._model = model
        self._data = data
        self._viewport = mujoco.MjrRect(0, 0, size_px, size_px)
        self._gl: Any = None
        self._context: Any = None
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision geoms
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._perturbation = mujoco.MjvPerturb()
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_SCENE_GEOMS)
        self._groups = model.geom_group.copy()
        self._drawn = self._options.geomgroup[np.clip(self._groups, 0, HIDDEN_GROUP)] > 0
        pieces = cut_into_pieces(model, self._drawn)
        self._triangles = pieces.triangles
        self._culling = Culling(model, self._drawn, pieces, size_px)
        self._cull = cull
        self._context = self._make_context(textures, size_px)
        self._meshes = MeshLists(model, self._context, pieces, whole=uses_egl())
        self._readback = Readback(self._context, size_px)
        self.triangles_drawn = 0
        """In the last images, reflections included."""
        self._has_drawn = False
        if not _COMPILATION.over:  # what is compiled on the first call is compiled now
            with _COMPILATION.turn():
                self._culling.parts(data, 0)
            _COMPILATION.finish()

    def _make_context(self, textures: tuple[Texture, ...], size_px: int) -> Any:
        model = self._model
        model.vis.global_.offwidth = model.vis.global_.offheight = size_px
        if not model.light_castshadow.any():
            model.vis.quality.shadowsize = 0
        try:
            self._gl = make_gl_context(size_px)
            self._gl.make_current()
            with contextlib.nullcontext() if uses_egl() else without_whole_meshes(model):
                context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        except Exception as error:
            raise GlError(explain(error, "no render context can be made")) from error
        upload_textures(context, textures, self._drawn_textures())
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        return context

    def _drawn_textures(self) -> set[int]:
        """Ids of the textures that anything visible uses."""
        model = self._model
        materials = np.concatenate([model.geom_matid[self._drawn], model.site_matid])
        sky = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)  # no material names it
        return {*model.mat_texid[materials[materials >= 0]].ravel().tolist(), *sky.tolist()}

    def render(self, camera: str) -> NDArray[np.uint8]:
        """One image as OpenGL gives it: uint8 (size_px, size_px, 3)."""
        return self.images((camera,))[0]

    def images(self, cameras: Sequence[str]) -> NDArray[np.uint8]:
        """Images as OpenGL gives them: uint8 (cameras, size_px, size_px, 3)."""
        self._gl.make_current()  # another simulator of this process may have drawn last
        self.triangles_drawn = 0
        pending = [(row, drawing) for row, camera in enumerate(cameras) for drawing in self._start(camera)]
        size_px = self._viewport.width
        images = np.empty((len(cameras), size_px, size_px, 3), dtype=np.uint8)
        for row, drawing in pending:  # a camera's later ones lie over its first
            self._readback.finish(drawing, images[row])
        if not self._has_drawn:
            self._has_drawn = True
            return_freed_memory()  # a software renderer has compiled its shaders now
        return images

    def _start(self, name: str) -> Iterator[Pending]:
        """One image's drawings, under way."""
        camera = self._camera.fixedcamid = self._model.camera(name).id
        culling = self._culling
        parts = culling.parts(self._data, camera) if self._cull else [culling.whole]
        for number, part in enumerate(parts):
            self._draw(part, view=(camera, number))
            yield self._readback.start(part.area)

    def _draw(self, part: Part, view: Hashable) -> None:
        model, scene = self._model, self._scene
        self.triangles_drawn += int(self._triangles[part.pieces].sum()) * (1 + part.reflections)
        model.geom_group[:] = np.where(part.geoms, self._groups, HIDDEN_GROUP)
        mujoco.mjv_updateScene(
            model,
            self._data,
            self._options,
            self._perturbation,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            scene,
        )
        model.geom_group[:] = self._groups
        self._meshes.show(part.pieces, view)
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = part.reflections
        mujoco.mjr_render(self._viewport, scene, self._context)

    def close(self) -> None:
        """Free the GL resources."""
        gl, self._gl = self._gl, None
        if gl is not None:
            if self._context is not None:
                gl.make_current()  # else they would be freed in another's context
                self._context.free()
            gl.free()

    def __del__(self) -> None:
        self.close()


def convert(image: NDArray[np.uint8], convention: ImageConvention) -> NDArray[np.uint8]:
    """An image as OpenGL gives it (H, W, 3), in another convention."""
    match convention:
        case "raw":
            return image
        case "rotated_180":
            return image[::-1, ::-1]
        case "true_view":
            return image[::-1]
