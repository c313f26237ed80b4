"""Renders an episode's video from its trace: at any size, in the true view or as the policy saw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from harness.sim.renderer import convert
from harness.sim.settings import RolloutSettings
from harness.sim.trace_scene import ShownTrace, TraceScenes
from results.trace import Trace, read_trace, trace_path
from results.video import Caption, FrameLayout, video_path, write_video
from tasks.interface import CAMERAS, CONTROL_HZ, EpisodeSpec, Outcome
from tasks.protocols import find_protocol


class TraceVideos:
    """Renders videos one after another, keeping the last task's model.

    Args:
        settings: of the run; its cameras and image convention are what the policy saw.
        size_px: height and width of each camera's picture.
        policy_view: draw each observation as the policy got it, held until the next; else every control step
            as a person at the camera would see it.
    """

    def __init__(self, settings: RolloutSettings, *, size_px: int, policy_view: bool) -> None:
        self._settings = settings
        self._size_px = size_px
        self._policy_view = policy_view
        self._scenes = TraceScenes(size_px)

    def render(
        self, spec: EpisodeSpec, outcome: Outcome, on_frame: Callable[[int, int], None] = lambda frame, frames: None
    ) -> None:
        """Write the episode's video into the run directory.

        Args:
            on_frame: told after each frame how many are drawn, and of how many.

        Raises:
            TraceError: the trace is missing, damaged, or of another model.
            OSError: the video cannot be written.
        """
        run_dir = self._settings.run_dir
        trace = read_trace(run_dir / trace_path(spec.episode_id))
        shown = self._scenes.open(spec, trace)
        text = find_protocol(spec.protocol).instruction(spec.task)
        layout = FrameLayout(
            cameras=len(self._settings.cameras if self._policy_view else CAMERAS),
            size_px=self._size_px,
            caption=Caption(outcome=outcome, text=f"as the policy saw it: {text}" if self._policy_view else text),
        )
        pictures = self._observed(shown, trace) if self._policy_view else self._states(shown, trace)

        def frames() -> Iterator[NDArray[np.uint8]]:
            for step, images in enumerate(pictures):
                yield layout.frame(images, step / CONTROL_HZ)
                on_frame(step + 1, len(trace.qpos))

        write_video(
            run_dir / video_path(spec.episode_id, policy_view=self._policy_view),
            frames(),
            width=layout.width,
            height=layout.height,
        )

    @staticmethod
    def _states(shown: ShownTrace, trace: Trace) -> Iterator[NDArray[np.uint8]]:
        """After every control step: uint8 (2, size, size, 3), true view."""
        for row in range(len(trace.qpos)):
            yield np.stack([convert(image, "true_view") for image in shown.state(row, CAMERAS)])

    def _observed(self, shown: ShownTrace, trace: Trace) -> Iterator[NDArray[np.uint8]]:
        """Before every control step, the policy's last observation: uint8 (cameras, size, size, 3), its convention."""
        images = np.zeros((len(self._settings.cameras), self._size_px, self._size_px, 3), dtype=np.uint8)
        rows = {int(step): row for row, step in enumerate(trace.query_steps)}
        for step in range(len(trace.qpos)):
            if step in rows:
                raw = shown.observation(rows[step], self._settings.cameras)
                images = np.stack([convert(image, self._settings.image_convention) for image in raw])
            yield images
