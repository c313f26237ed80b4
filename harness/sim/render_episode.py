"""Renders one episode's video from its trace and says how far it is: what the review page starts.

    python -m harness.sim.render_episode RUN EPISODE true|policy SIZE

Prints `FRAME of FRAMES` as it goes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.sim.gl import GlError, choose_backend, prepare
from harness.sim.settings import video_settings
from results.review.content import readable_records
from results.run_directory import RunDirectory
from results.trace import TraceError
from tasks.plan import local_episode

SAY_EVERY = 5
"""Frames."""


def main(run: Path, episode_id: str, view: str, size_px: int) -> int:
    """Render; returns the exit status.

    Args:
        size_px: height and width of each camera's picture.
    """
    try:
        _render(RunDirectory(run.resolve()), episode_id, policy_view=view == "policy", size_px=size_px)
    except (GlError, TraceError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _render(run: RunDirectory, episode_id: str, *, policy_view: bool, size_px: int) -> None:
    manifest = run.manifest()
    records, _ = readable_records(run)  # a damaged line is another episode's
    record = next((r for r in records if r.spec.episode_id == episode_id and r.trace), None)
    if record is None:
        raise ValueError(f"{run.path} has no trace of an episode {episode_id!r}")
    backend, _ = choose_backend("auto")
    prepare(backend, True)
    from harness.sim.trace_video import TraceVideos  # imports mujoco: after the backend is set

    settings = video_settings(run.path, manifest, policy_view=policy_view)
    videos = TraceVideos(settings, size_px=size_px, policy_view=policy_view)
    videos.render(local_episode(record.spec), record.outcome, say)


def say(frame: int, frames: int) -> None:
    """Report progress to the parent."""
    if frame % SAY_EVERY == 0 or frame == frames:
        print(f"{frame} of {frames}", flush=True)


if __name__ == "__main__":
    status = main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.stderr.flush()
    os._exit(status)  # GL's exit handlers print errors that mean nothing
