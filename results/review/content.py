"""What the page shows, as JSON: a run's episodes, and one episode's course."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.comparison import ComparisonError, compare_records
from results.lock import is_locked
from results.manifest import RunManifest
from results.records import RecordError, from_json
from results.run_directory import RunDirectory
from results.summary import suite_frame, task_frame
from results.tags import TAGS, TagError, read_reviews
from results.trace import read_trace, trace_path
from results.video import video_path
from tasks.interface import CONTROL_HZ, EpisodeRecord, Outcome

ACTION_NAMES = ("x", "y", "z", "rotation x", "rotation y", "rotation z", "gripper")
ARM_JOINTS, FINGERS = slice(0, 7), slice(7, 9)
"""Of qpos: the Panda's come first in every LIBERO scene."""
HAND_POSITION = slice(0, 3)
"""Of a policy's proprioception [m]."""
NO_COURSE: dict[str, list[Any]] = {key: [] for key in ("actions", "queries", "hand", "joints", "fingers")}
"""What there is to see of an episode without a trace."""
LETTERS = {Outcome.SUCCESS: "s", Outcome.TIMEOUT: "f", Outcome.ERROR: "e"}


class OutsideError(ValueError):
    """A file of the run is a link that leads out of it."""


def is_inside(run: Path, file: Path) -> bool:
    """Whether it is a file, and within the run wherever links lead."""
    return file.is_file() and file.resolve().is_relative_to(run.resolve())


def readable_records(run: RunDirectory) -> tuple[list[EpisodeRecord], list[int]]:
    """The episodes as `RunDirectory.records` has them, and the numbers of the lines that are damaged."""
    records: dict[str, EpisodeRecord] = {}
    damaged = []
    file = run.path / "episodes.jsonl"
    lines = file.read_text(errors="replace").split("\n")[:-1] if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = from_json(line)
        except RecordError:
            record = None
        if record is None or not _is_sound(record):
            damaged.append(number)
            continue
        records.pop(record.spec.episode_id, None)
        records[record.spec.episode_id] = record
    return list(records.values()), damaged


def version(run: RunDirectory) -> str:
    """Changes when there is something new to show."""
    parts = []
    for name in ("episodes.jsonl", "manifest.json", "review.json"):
        try:
            status = (run.path / name).stat()
            parts.append(f"{status.st_size}.{status.st_mtime_ns}")
        except FileNotFoundError:
            parts.append("0")
    return "-".join(parts)


def run_content(run: RunDirectory, name: str) -> dict[str, Any]:
    """All of a run but its episodes' courses.

    Raises:
        ValueError: there is no run.
    """
    now = version(run)
    manifest = run.manifest()
    records, damaged = readable_records(run)
    problems = [f"episodes.jsonl line {number} is damaged; its episode is shown as missing" for number in damaged]
    try:
        reviews = read_reviews(run.path)
    except TagError as error:
        reviews = {}
        problems.append(str(error))
    episodes = [_episode(run, record) for record in sorted(records, key=lambda r: r.spec.episode_id)]
    return {
        "name": name,
        "version": now,
        "running": is_locked(run.path),
        "about": _about(manifest),
        "hasPolicyView": bool(manifest.cameras),
        "warnings": [*manifest.warnings, *problems],
        "tags": list(TAGS),
        "hz": CONTROL_HZ,
        "tasks": _tasks(manifest, records),
        "suites": _suites(manifest, records),
        "episodes": episodes,
        "reviews": {key: {"tags": list(said.tags), "note": said.note} for key, said in reviews.items()},
    }


def episode_content(run: RunDirectory, record: EpisodeRecord) -> dict[str, Any]:
    """One episode's course.

    Raises:
        TraceError: its trace is missing or damaged.
        OutsideError: it is a link to elsewhere.
    """
    content: dict[str, Any] = {"id": record.spec.episode_id, "error": record.error, "steps": record.steps}
    if not record.trace:
        return content | NO_COURSE
    file = run.path / record.trace
    if file.exists() and not is_inside(run.path, file):
        raise OutsideError(f"{record.trace} lies outside the run")
    trace = read_trace(file)
    return content | {
        "actionNames": ACTION_NAMES,
        "actions": _rounded(np.clip(trace.actions, -1.0, 1.0)),
        "queries": trace.query_steps.tolist(),
        "hand": _rounded(trace.query_proprio[:, HAND_POSITION]),
        "joints": _rounded(trace.qpos[:, ARM_JOINTS]),
        "fingers": _rounded(trace.qpos[:, FINGERS]),
    }


def comparison_content(runs: Sequence[RunDirectory], names: Sequence[str]) -> list[str]:
    """What two runs say about each other, in words; or why they say nothing."""
    (first, ours), (second, theirs) = ((run.manifest(), readable_records(run)[0]) for run in runs)
    try:
        compared = compare_records(first, ours, second, theirs)
    except ComparisonError as error:
        return [f"No comparison: {error}"]
    sentences = [f"{pairing.name}: {pairing.sentence(*names)}" for pairing in compared.pairings]
    return [*sentences, *(f"Differs beside the policy: {warning}" for warning in compared.warnings)]


def as_script(variable: str, key: str, content: Any) -> str:
    """JavaScript that puts `content` at window[variable][key]: what a page opened from a file can load."""
    names, value = _script_json([variable, key]), _script_json(content)
    return f"{{ const [variable, key] = {names}; (window[variable] ||= {{}})[key] = {value}; }}\n"


def _script_json(content: Any) -> str:
    """JSON that ends no script element and no line."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _is_sound(record: EpisodeRecord) -> bool:
    """Whether a record names files of its own run only: somebody may have sent it."""
    numbers = (record.steps, record.queries, record.clipped_actions)
    if not isinstance(record.spec.episode_id, str) or not all(type(number) is int for number in numbers):
        return False
    parts = record.spec.episode_id.split("/")
    sound = len(parts) == 4 and all(
        part and part not in (".", "..") and "\\" not in part and "\0" not in part for part in parts
    )
    return sound and record.trace in ("", trace_path(record.spec.episode_id))


def _episode(run: RunDirectory, record: EpisodeRecord) -> dict[str, Any]:
    episode_id = record.spec.episode_id
    videos = [(run.path / video_path(episode_id, policy_view=view)).is_file() for view in (False, True)]
    return {
        "id": episode_id,
        "o": LETTERS[record.outcome],
        "n": record.steps,
        "q": record.queries,
        "v": videos[0],
        "p": videos[1],
        "t": bool(record.trace),
    }


def _tasks(manifest: RunManifest, records: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    rows = task_frame(records, manifest.planned_episodes).to_dict("records")
    return [
        {
            "key": f"{row['suite']}/{int(row['task_index']):02d}",
            "suite": row["suite"],
            "index": int(row["task_index"]),
            "name": str(row["task"]).replace("_", " "),
            "prompt": manifest.instructions.get(f"{row['suite']}/{int(row['task_index']):02d}", ""),
            **_rate(row),
        }
        for row in rows
    ]


def _suites(manifest: RunManifest, records: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    rows = suite_frame(records, manifest.planned_episodes).to_dict("records")
    return [{"suite": row["suite"], **_rate(row)} for row in rows]


def _rate(row: dict[Any, Any]) -> dict[str, Any]:
    known = not math.isnan(row["rate"])
    return {
        "planned": int(row["planned"]),
        "successes": int(row["successes"]),
        "finished": int(row["successes"] + row["timeouts"]),
        "errors": int(row["errors"]),
        "rate": row["rate"] if known else None,
        "low": row["low_95"] if known else None,
        "high": row["high_95"] if known else None,
        "isMean": row["interval"].startswith("stratified"),
    }


def _about(manifest: RunManifest) -> list[list[str]]:
    rows = [
        ["policy", manifest.policy],
        ["checkpoint", f"{manifest.checkpoint} ({manifest.checkpoint_sha256[:12]})" if manifest.checkpoint else ""],
        ["protocol", str(manifest.protocol["name"])],
        ["execution", f"{manifest.ensemble}, seed {manifest.seed}"],
        ["mujoco", manifest.versions.get("mujoco", "missing")],
        ["renderer", manifest.renderer],
        ["machine", manifest.machine],
        ["begun", manifest.started_utc],
    ]
    return [row for row in rows if row[1]]


def _rounded(values: NDArray[np.floating[Any]]) -> list[list[float | None]]:
    """As JSON has numbers: none that is infinite or no number."""
    rounded = np.round(values.astype(np.float64), 4)
    return [[value if math.isfinite(value) else None for value in row] for row in rounded.tolist()]
