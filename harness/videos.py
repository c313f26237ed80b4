"""Videos of a run: after it, or by `vla-eval --render`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.arguments import EvalArguments
from harness.drawing import find_drawing
from harness.machine import check_workers, count_workers
from harness.preparation import check_video_flags
from harness.progress import LINE_EVERY_S
from harness.rollout.messages import RenderVideo
from harness.rollout.render_pool import RenderPool, RenderResult
from harness.sim.settings import video_settings
from harness.terminal import Terminal
from results.manifest import RunManifest
from results.run_directory import RunDirectory
from results.video import choose_videos, video_path
from tasks.interface import EpisodeRecord
from tasks.plan import local_episode


@dataclass(frozen=True, slots=True, kw_only=True)
class VideosEnd:
    """What became of a run's videos."""

    rendered: int
    failed: int


def videos_after_run(
    run: RunDirectory,
    manifest: RunManifest,
    records: Sequence[EpisodeRecord],
    arguments: EvalArguments,
    terminal: Terminal,
) -> VideosEnd:
    """Render what `--videos` asks for and is not there yet.

    Raises:
        GlError: nothing can be rendered on this machine.
        RenderPoolError: likewise, by a worker.
        KeyboardInterrupt: Ctrl-C; whole videos are kept.
    """
    return _render(run, manifest, _missing(run.path, records, arguments), arguments, terminal)


def render_run(arguments: EvalArguments, terminal: Terminal) -> VideosEnd:
    """`vla-eval --render RUN`: what `--videos` says and is not there yet; or the episodes `--only` names, in any case.

    Raises:
        ValueError: there is no such run or episode, or its policy saw nothing to show.
        GlError: nothing can be rendered on this machine.
        RenderPoolError: likewise, by a worker.
        KeyboardInterrupt: Ctrl-C; whole videos are kept.
    """
    check_workers(arguments.workers)
    check_video_flags(arguments)
    assert arguments.render is not None
    run = RunDirectory(arguments.render)
    manifest = run.manifest()
    if arguments.video_view == "policy" and not manifest.cameras:
        raise ValueError(f"--video-view policy: the policy of {run.path} saw no images; leave it at true")
    records = run.records()
    return _render(run, manifest, _wanted(run.path, records, arguments), arguments, terminal)


def _missing(path: Path, records: Sequence[EpisodeRecord], arguments: EvalArguments) -> list[EpisodeRecord]:
    """What `--videos` asks for and is not there yet."""
    policy_view = arguments.video_view == "policy"
    return [
        record
        for record in choose_videos(records, arguments.videos)
        if not (path / video_path(record.spec.episode_id, policy_view=policy_view)).is_file()
    ]


def _wanted(path: Path, records: Sequence[EpisodeRecord], arguments: EvalArguments) -> list[EpisodeRecord]:
    if not arguments.only:
        return _missing(path, records, arguments)
    by_id = {record.spec.episode_id: record for record in records}
    for episode_id in arguments.only:
        if episode_id not in by_id:
            raise ValueError(
                f"{path} has no episode {episode_id!r}; it has {len(by_id)}, such as {', '.join(list(by_id)[:3])}"
            )
        if not by_id[episode_id].trace:
            raise ValueError(f"{episode_id} ended in an error and left nothing to see:\n{by_id[episode_id].error}")
    return [by_id[episode_id] for episode_id in dict.fromkeys(arguments.only)]


def _render(
    run: RunDirectory,
    manifest: RunManifest,
    records: Sequence[EpisodeRecord],
    arguments: EvalArguments,
    terminal: Terminal,
) -> VideosEnd:
    if not records:
        return VideosEnd(rendered=0, failed=0)
    drawn = find_drawing(arguments.mujoco_gl)
    workers = min(max(1, count_workers(arguments.workers, on_gpu=drawn.on_gpu)), len(records))
    policy_view = arguments.video_view == "policy"
    terminal.say(f"Rendering {len(records)} videos, {workers} workers, {drawn.renderer}")
    pool = RenderPool(
        settings=video_settings(run.path.resolve(), manifest, policy_view=policy_view),
        backend=drawn.backend,
        egl_devices=drawn.egl_devices,
        workers=workers,
        request=lambda record: RenderVideo(
            spec=record.spec, outcome=record.outcome, size_px=arguments.video_size, policy_view=policy_view
        ),
        timeout_s=arguments.worker_timeout_s,
    )
    report = _Report(run, len(records), policy_view, terminal)
    pool.render([dataclasses.replace(r, spec=local_episode(r.spec)) for r in records], report.add)
    return VideosEnd(rendered=report.done - report.failed, failed=report.failed)


class _Report:
    """Says how rendering goes."""

    def __init__(self, run: RunDirectory, total: int, policy_view: bool, terminal: Terminal) -> None:
        self._run, self._total, self._policy_view, self._terminal = run, total, policy_view, terminal
        self.done = self.failed = 0
        self._last_line = time.monotonic()

    def add(self, result: RenderResult) -> None:
        self.done += 1
        episode_id = result.record.spec.episode_id
        if result.error:
            self.failed += 1
            self._run.log.write("video_failed", episode_id=episode_id, why=result.error)
            self._terminal.complain(f"no video of {episode_id}: {result.error}")
        elif self._total <= 3:
            path = self._run.path / video_path(episode_id, policy_view=self._policy_view)
            self._terminal.say(str(path))
        elif time.monotonic() - self._last_line > LINE_EVERY_S or self.done == self._total:
            self._last_line = time.monotonic()
            self._terminal.say(f"{self.done}/{self._total} videos")
