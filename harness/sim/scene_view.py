"""Draws a scene at any positions without touching the simulation: on a second `MjData` of the same model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.sim.renderer import Renderer
from harness.sim.scene import Scene
from harness.sim.stack import mujoco


class SceneView:
    """The cameras of one scene.

    Args:
        scene: what to draw; fixture poses are those of its model at the moment of drawing.
        size_px: height and width of an image.
        cull: leave out what cannot be seen; only tests turn it off.

    Raises:
        GlError: no GL context can be made.
    """

    def __init__(self, scene: Scene, size_px: int, *, cull: bool = True) -> None:
        self._model = scene.model
        self._data = mujoco.MjData(scene.model)
        self._find_poses()
        self._renderer = Renderer(scene.model, self._data, scene.textures, size_px, cull=cull)

    def images(
        self, cameras: tuple[str, ...], qpos: NDArray[np.float64], site_rgba: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Images as OpenGL gives them.

        Args:
            qpos: (nq,) positions.
            site_rgba: (nsite, 4) colours of the sites; a lit burner is one.

        Returns:
            uint8 (cameras, size_px, size_px, 3).
        """
        self._data.qpos[:] = qpos
        self._find_poses()
        current = self._model.site_rgba.copy()
        self._model.site_rgba[:] = site_rgba
        images = self._renderer.images(cameras)
        self._model.site_rgba[:] = current
        return images

    def _find_poses(self) -> None:
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    @property
    def triangles_drawn(self) -> int:
        """In the last images, reflections included."""
        return self._renderer.triangles_drawn

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()
