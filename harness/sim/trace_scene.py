"""Draws what a trace recorded: the states after each control step, or the observations before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.sim.scene import Scene
from harness.sim.scene_view import SceneView
from results.trace import Trace, TraceError
from tasks.demonstrations import read_demonstration_start
from tasks.interface import EpisodeSpec, Recorded


class ShownTrace:
    """One trace before the cameras.

    Args:
        scene: of the trace's task, its fixtures in place.
        view: that draws it.
        trace: what to draw.
    """

    def __init__(self, scene: Scene, view: SceneView, trace: Trace) -> None:
        self.scene = scene
        self._view, self._trace = view, trace

    def state(self, row: int, cameras: tuple[str, ...]) -> NDArray[np.uint8]:
        """After control step `row` (0: before the first), as OpenGL gives it: uint8 (cameras, size, size, 3)."""
        return self._draw(cameras, self._trace.qpos[row], self._trace.site_alpha[row])

    def observation(self, row: int, cameras: tuple[str, ...]) -> NDArray[np.uint8]:
        """Query `row`, as OpenGL gives it: uint8 (cameras, size, size, 3)."""
        return self._draw(cameras, self._trace.query_qpos[row], self._trace.query_site_alpha[row])

    def _draw(
        self, cameras: tuple[str, ...], qpos: NDArray[np.float64], alpha: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        rgba: NDArray[np.float32] = self.scene.model.site_rgba.copy()
        rgba[:, 3] = alpha
        return self._view.images(cameras, qpos, rgba)


class TraceScenes:
    """Scenes for traces, one after another; the last task's model is kept.

    Args:
        size_px: height and width of an image.
    """

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        self._built_for: tuple[str, str] | None = None
        self._scene: Scene
        self._view: SceneView

    def open(self, spec: EpisodeSpec, trace: Trace) -> ShownTrace:
        """An episode's trace, ready to be drawn; until the next is opened.

        Raises:
            TraceError: it is of another model.
        """
        self._build(spec)
        if trace.qpos.shape[1] != self._scene.model.nq or trace.fixtures != self._scene.fixtures:
            raise TraceError(f"the trace of {spec.episode_id} was recorded with another model of the task")
        self._scene.place_fixtures(trace.fixture_poses)
        return ShownTrace(self._scene, self._view, trace)

    def _build(self, spec: EpisodeSpec) -> None:
        xml = ""
        if isinstance(spec.init, Recorded):
            xml = read_demonstration_start(spec.init.file, spec.init.demo).model_xml
        if self._built_for == (str(spec.task), xml):
            return
        if self._built_for is not None:
            self._view.close()
            self._scene.close()
        self._built_for = None
        self._scene = Scene(spec.task, xml)
        self._view = SceneView(self._scene, self._size_px)
        self._built_for = (str(spec.task), xml)
