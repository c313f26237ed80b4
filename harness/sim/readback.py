"""Reads images back without waiting for each: the GPU copies them into buffers of its own while the next one is prepared.

`mjr_readPixels` waits until a drawing is done and copied. With two cameras, and mirrors drawn apart, a query takes three or four
drawings; here all are under way before the first is waited for.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.stack import mujoco
from harness.sim.view_volume import Rectangle

_BYTES_PER_PIXEL = 4  # RGBA, the buffer's own: drivers convert to RGB on the processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An image area on its way."""

    buffer: int
    area: Rectangle


class Readback:
    """Image areas of one context's off-screen buffer.

    Args:
        context: mujoco's `MjrContext`, current, with its off-screen buffer chosen.
        size_px: height and width of that buffer.
    """

    def __init__(self, context: Any, size_px: int) -> None:
        from OpenGL import GL

        self._gl = GL
        self._context = context
        self._num_bytes = size_px * size_px * _BYTES_PER_PIXEL
        self._free: list[int] = []

    def start(self, area: Rectangle) -> Pending:
        """Have an area of what was drawn last copied: the calls of `mjr_readPixels`, into a buffer."""
        gl, context = self._gl, self._context
        width, height = area.right - area.left, area.top - area.bottom
        source = context.offFBO
        if context.offSamples:  # each pixel's samples become one
            source = context.offFBO_r
            gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, context.offFBO)
            gl.glReadBuffer(gl.GL_COLOR_ATTACHMENT0)
            gl.glBindFramebuffer(gl.GL_DRAW_FRAMEBUFFER, context.offFBO_r)
            gl.glDrawBuffer(gl.GL_COLOR_ATTACHMENT0)
            corners = (area.left, area.bottom, area.right, area.top)
            gl.glBlitFramebuffer(*corners, *corners, gl.GL_COLOR_BUFFER_BIT, gl.GL_NEAREST)
        gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, source)
        gl.glReadBuffer(gl.GL_COLOR_ATTACHMENT0)
        buffer = self._free.pop() if self._free else self._make_buffer()
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, buffer)
        gl.glReadPixels(area.left, area.bottom, width, height, gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, ctypes.c_void_p(0))
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, 0)
        mujoco.mjr_restoreBuffer(context)
        return Pending(buffer=buffer, area=area)

    def finish(self, pending: Pending, image: NDArray[np.uint8]) -> None:
        """Wait for an area and put it where it belongs in `image` (size_px, size_px, 3)."""
        gl, area = self._gl, pending.area
        pixels = np.empty((area.top - area.bottom, area.right - area.left, _BYTES_PER_PIXEL), dtype=np.uint8)
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, pending.buffer)
        gl.glGetBufferSubData(gl.GL_PIXEL_PACK_BUFFER, 0, pixels.nbytes, pixels)
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, 0)
        self._free.append(pending.buffer)
        image[area.bottom : area.top, area.left : area.right] = pixels[..., :3]

    def _make_buffer(self) -> int:
        gl = self._gl
        buffer = int(gl.glGenBuffers(1))
        gl.glBindBuffer(gl.GL_PIXEL_PACK_BUFFER, buffer)
        gl.glBufferData(gl.GL_PIXEL_PACK_BUFFER, self._num_bytes, None, gl.GL_STREAM_READ)
        return buffer
