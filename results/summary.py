"""From episode records to success rates per task and per suite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from results.files import write_atomically
from results.manifest import RunManifest
from results.statistics import wilson
from tasks.interface import EpisodeRecord, Outcome

_EPISODE_COLUMNS = (
    *("episode_id", "suite", "task_index", "task", "success", "timeout", "error"),
    *("steps", "queries", "clipped_actions", "build_s", "reset_s", "physics_s", "render_s", "policy_s", "wait_s"),
)


def episode_frame(records: Sequence[EpisodeRecord]) -> pd.DataFrame:
    """One row per episode."""
    rows = [
        {
            "episode_id": record.spec.episode_id,
            "suite": record.spec.task.suite,
            "task_index": record.spec.task.index,
            "task": record.spec.task.name,
            "success": record.outcome is Outcome.SUCCESS,
            "timeout": record.outcome is Outcome.TIMEOUT,
            "error": record.outcome is Outcome.ERROR,
            "steps": record.steps,
            "queries": record.queries,
            "clipped_actions": record.clipped_actions,
            "build_s": record.time_spent.build_s,
            "reset_s": record.time_spent.reset_s,
            "physics_s": record.time_spent.physics_s,
            "render_s": record.time_spent.render_s,
            "policy_s": record.time_spent.policy_s,
            "wait_s": record.time_spent.wait_s,
        }
        for record in records
    ]
    return pd.DataFrame(rows, columns=_EPISODE_COLUMNS)


def _rates(episodes: pd.DataFrame, planned: int) -> dict[str, Any]:
    """Counts and intervals of a group of episodes."""
    successes, timeouts, errors = (int(episodes[column].sum()) for column in ("success", "timeout", "error"))
    interval = wilson(successes, successes + timeouts)
    at_worst = wilson(successes, planned)
    return {
        "planned": planned,
        "successes": successes,
        "timeouts": timeouts,
        "errors": errors,
        "missing": planned - len(episodes),
        "rate": interval.rate,
        "low_95": interval.low,
        "high_95": interval.high,
        "rate_if_all_unfinished_failed": at_worst.rate,
        "low_95_if_all_unfinished_failed": at_worst.low,
        "mean_steps_to_success": float(episodes.loc[episodes["success"], "steps"].mean()),
    }


def task_frame(records: Sequence[EpisodeRecord], planned: dict[str, int]) -> pd.DataFrame:
    """One row per planned task.

    Args:
        records: the run's episodes.
        planned: `suite/task` → episodes planned.
    """
    episodes = episode_frame(records)
    rows = []
    for task, count in planned.items():
        suite, index = task.rsplit("/", 1)
        group = episodes[(episodes["suite"] == suite) & (episodes["task_index"] == int(index))]
        name = group["task"].iloc[0] if len(group) else ""
        rows.append({"suite": suite, "task_index": int(index), "task": name, **_rates(group, count)})
    return pd.DataFrame(rows)


def suite_frame(records: Sequence[EpisodeRecord], planned: dict[str, int]) -> pd.DataFrame:
    """One row per planned suite: its episodes pooled."""
    episodes = episode_frame(records)
    counts: dict[str, int] = {}
    for task, count in planned.items():
        suite = task.rsplit("/", 1)[0]
        counts[suite] = counts.get(suite, 0) + count
    return pd.DataFrame(
        [{"suite": suite, **_rates(episodes[episodes["suite"] == suite], count)} for suite, count in counts.items()]
    )


def time_shares(records: Sequence[EpisodeRecord]) -> dict[str, float]:
    """Share of the workers' busy time per part; empty without episodes."""
    episodes = episode_frame(records)
    parts = ["build_s", "reset_s", "physics_s", "render_s", "policy_s", "wait_s"]
    total = float(episodes[parts].to_numpy().sum())
    return {part.removesuffix("_s"): float(episodes[part].sum()) / total for part in parts} if total > 0 else {}


def write_summary(folder: Path, manifest: RunManifest, records: Sequence[EpisodeRecord], wall_s: float) -> None:
    """Write `summary.json` and `summary.csv`: a function of the episodes, whatever their order, but for `time`.

    Args:
        folder: the run directory.
        wall_s: the duration of all the run's sessions [s].
    """
    tasks = task_frame(records, manifest.planned_episodes)
    suites = suite_frame(records, manifest.planned_episodes)
    content = {
        "protocol": manifest.protocol["name"],
        "policy": manifest.policy,
        "plan_sha256": manifest.plan_sha256,
        "shard": manifest.shard,
        "warnings": list(manifest.warnings),
        "suites": json.loads(suites.to_json(orient="records")),
        "tasks": json.loads(tasks.to_json(orient="records")),
        "time": {"wall_s": wall_s, "worker_shares": time_shares(records)},
    }
    write_atomically(folder / "summary.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(folder / "summary.csv", tasks.to_csv(index=False).encode())
