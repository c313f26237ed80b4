"""Renders LIBERO's cameras from a copy of the simulation's state.

robosuite's own render context is used, so that an image has the same bytes as stock's; it is given the
copy, because its constructor runs a forward pass, which would disturb the solver's warm start.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.gl import GlError, explain, without_cuda_visible_devices
from harness.sim.stack import mujoco
from tasks.interface import ImageConvention


class RenderSource:
    """What robosuite's render context needs of a simulation: a model, data, a forward pass and a place to register."""

    def __init__(self, model: Any, data: Any) -> None:
        self.model = model  # robosuite's wrapper: the context reads ._model
        self.data = _DataHandle(data)

    def forward(self) -> None:
        mujoco.mj_forward(self.model._model, self.data._data)

    def add_render_context(self, context: Any) -> None:
        del context  # the renderer holds it


class _DataHandle:
    def __init__(self, data: Any) -> None:
        self._data = data


class Renderer:
    """Draws cameras of one model.

    Args:
        model: robosuite's model wrapper.
        data: the mujoco data to draw; kept by reference.
        size_px: height and width of an image.

    Raises:
        GlError: no GL context can be made; the message says what to install.
    """

    def __init__(self, model: Any, data: Any, size_px: int) -> None:
        from robosuite.utils.binding_utils import MjRenderContextOffscreen

        self._model = model
        self._size_px = size_px
        self._context: Any = None
        try:
            with without_cuda_visible_devices():
                self._context = MjRenderContextOffscreen(RenderSource(model, data), device_id=-1)
        except Exception as error:
            raise GlError(explain(error, "robosuite cannot make its render context")) from error
        self._context.vopt.geomgroup[0] = 0  # collision geoms
        self._context.vopt.geomgroup[1] = 1

    def render(self, camera: str) -> NDArray[np.uint8]:
        """One image as OpenGL gives it: uint8 (size_px, size_px, 3)."""
        self._context.gl_ctx.make_current()  # another simulator of this process may have drawn last
        self._context.render(width=self._size_px, height=self._size_px, camera_id=self._model.camera_name2id(camera))
        return self._context.read_pixels(self._size_px, self._size_px)

    def close(self) -> None:
        """Free the GL resources, in their own context: robosuite frees them in whichever is current, hurting another's."""
        context, self._context = self._context, None
        if context is not None:
            context.gl_ctx.make_current()

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
