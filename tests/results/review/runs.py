"""Run directories for the review page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from results.manifest import RunManifest, write_manifest
from results.records import to_json
from results.trace import trace_path, write_trace
from results.video import video_path, write_video
from tasks.interface import EpisodeRecord, Outcome
from tests.examples import episode, manifest, record, trace

LETTERS = {"s": Outcome.SUCCESS, "f": Outcome.TIMEOUT, "e": Outcome.ERROR}
STEPS = 40


def episodes(letters: str, task: int = 0) -> list[EpisodeRecord]:
    """One per letter: s success, f failure, e error."""
    found = []
    for i, letter in enumerate(letters):
        error = "it died" if letter == "e" else ""
        made = record(episode(task, i), LETTERS[letter], error=error, steps=STEPS)
        found.append(dataclasses.replace(made, trace="" if error else made.trace))
    return found


def write_run(folder: Path, records: list[EpisodeRecord], *, files: bool = True, **changes: object) -> Path:
    """A run as `vla-eval` leaves it.

    Args:
        files: traces of all, and a video of every second episode, whose pixels change with time.
    """
    folder.mkdir(parents=True)
    planned: dict[str, int] = {}
    for r in records:
        key = f"{r.spec.task.suite}/{r.spec.task.index:02d}"
        planned[key] = planned.get(key, 0) + 1
    of: RunManifest = dataclasses.replace(manifest(planned), **changes)  # type: ignore[arg-type]
    write_manifest(folder / "manifest.json", of)
    (folder / "episodes.jsonl").write_text("".join(f"{to_json(r)}\n" for r in records))
    for number, r in enumerate(records):
        if not files or r.error:
            continue
        made = trace(r.spec.episode_id, STEPS)
        qpos = np.tile(np.linspace(0, 1, STEPS + 1)[:, None], (1, 12))
        write_trace(folder / trace_path(r.spec.episode_id), dataclasses.replace(made, qpos=qpos))
        if number % 2 == 0:
            frames = (np.full((64, 128, 3), 5 * step, dtype=np.uint8) for step in range(STEPS + 1))
            write_video(folder / video_path(r.spec.episode_id), frames, width=128, height=64)
    return folder
