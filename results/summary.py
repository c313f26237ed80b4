"""From episode records to success rates per task and per suite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from results.files import write_atomically
from results.manifest import RunManifest
from results.statistics import Interval, Sample, clustered_wilson, sample, stratified_wilson, wilson
from tasks.interface import EpisodeRecord, Outcome

_EPISODE_COLUMNS = (
    *("episode_id", "suite", "task_index", "task", "init", "success", "timeout", "error"),
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
            "init": record.spec.episode_id.split("/")[2],
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


def _finished(episodes: pd.DataFrame) -> Sample:
    """The episodes that ended in success or by time, clustered by task and init state."""
    groups = episodes[~episodes["error"].astype(bool)].groupby(["suite", "task_index", "init"])["success"]
    return sample([int(n) for n in groups.sum()], [int(n) for n in groups.count()])


def _rates(episodes: pd.DataFrame, planned: int, interval: Interval, method: str) -> dict[str, Any]:
    """Counts and intervals of a group of episodes."""
    successes, timeouts, errors = (int(episodes[column].sum()) for column in ("success", "timeout", "error"))
    of = _finished(episodes)
    share = of.effective / of.episodes if of.episodes else 1.0  # repeats of init states say less
    at_worst = wilson(successes * share, planned * share)
    return {
        "planned": planned,
        "successes": successes,
        "timeouts": timeouts,
        "errors": errors,
        "missing": planned - len(episodes),
        "rate": interval.rate,
        "low_95": interval.low,
        "high_95": interval.high,
        "interval": method,
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
        of = _finished(group)
        rates = _rates(group, count, clustered_wilson(of), _method("Wilson", of))
        rows.append({"suite": suite, "task_index": int(index), "task": name, **rates})
    return pd.DataFrame(rows)


def suite_frame(records: Sequence[EpisodeRecord], planned: dict[str, int]) -> pd.DataFrame:
    """One row per planned suite.

    Where its tasks have equally many finished episodes they are pooled; elsewhere its rate is the mean of the tasks', each weighted
    by what was planned for it, with a stratified interval.
    """
    episodes = episode_frame(records)
    counts: dict[str, dict[int, int]] = {}
    for task, count in planned.items():
        suite, index = task.rsplit("/", 1)
        counts.setdefault(suite, {})[int(index)] = count
    rows = []
    for suite, tasks in counts.items():
        group = episodes[episodes["suite"] == suite]
        rows.append({"suite": suite, **_rates(group, sum(tasks.values()), *_suite_interval(group, tasks))})
    return pd.DataFrame(rows)


def _suite_interval(episodes: pd.DataFrame, planned: dict[int, int]) -> tuple[Interval, str]:
    """The interval of a suite's rate, and how it was made."""
    tasks = [_finished(episodes[episodes["task_index"] == index]) for index in planned]
    pooled = _finished(episodes)
    if len({task.episodes for task in tasks}) == 1 and len(set(planned.values())) == 1:
        return clustered_wilson(pooled), _method("Wilson", pooled)
    return stratified_wilson(tasks, list(planned.values())), _method("stratified Wilson", pooled)


def _method(name: str, of: Sample) -> str:
    return name if of.effective == of.episodes else f"{name}, clustered by init state"


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
