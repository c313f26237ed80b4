"""Gives a GL context the pixels of textures for which its model has stand-ins: the calls of MuJoCo's `mjr_uploadTexture`
(render_context.c), from a mapped file instead of the model's memory. Identical textures share one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import Any

from harness.sim.model_cache import Texture, read_pixels
from harness.sim.stack import mujoco

_CUBE_FACES = 6


def upload_textures(context: Any, textures: Collection[Texture], wanted: Collection[int]) -> None:
    """Fill the context's textures.

    Args:
        context: mujoco's `MjrContext`, current.
        textures: what to fill.
        wanted: ids of the textures that are drawn; the others keep their stand-ins.

    Raises:
        OSError: the pixels are gone or damaged.
    """
    known: dict[tuple[int, str], int] = {}
    for texture in textures:
        if texture.index not in wanted:
            continue
        content = (texture.kind, texture.sha256)
        if content not in known:
            known[content] = int(context.texture[texture.index])
            _upload(known[content], texture)
        context.texture[texture.index] = known[content]  # the stand-in's name is freed with the GL context


def _upload(name: int, texture: Texture) -> None:
    from OpenGL import GL
    from OpenGL.raw.GL.VERSION.GL_1_1 import glTexImage2D  # the wrapper would convert and copy

    pixels = read_pixels(texture)
    address = ctypes.c_void_p(pixels.ctypes.data)
    flat = texture.kind == mujoco.mjtTexture.mjTEXTURE_2D
    target = GL.GL_TEXTURE_2D if flat else GL.GL_TEXTURE_CUBE_MAP
    faces = [target] if flat else [GL.GL_TEXTURE_CUBE_MAP_POSITIVE_X + face for face in range(_CUBE_FACES)]
    separate = not flat and texture.width != texture.height  # one below the other, instead of one for all
    height = texture.width if separate else texture.height
    GL.glActiveTexture(GL.GL_TEXTURE0)
    GL.glEnable(target)
    GL.glBindTexture(target, name)
    # Wrapping, filters and mapping were set when MuJoCo uploaded the stand-in.
    for number, face in enumerate(faces):
        start = address.value + number * height * texture.width * 3 if separate else address.value  # type: ignore[operator]
        glTexImage2D(
            face, 0, GL.GL_RGB, texture.width, height, 0, GL.GL_RGB, GL.GL_UNSIGNED_BYTE, ctypes.c_void_p(start)
        )
    GL.glGenerateMipmap(target)
    GL.glDisable(target)
