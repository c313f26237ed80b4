"""The table a user sees at the end of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.manifest import RunManifest
from results.run_log import LogEvent
from results.summary import suite_frame, task_frame, time_shares
from tasks.interface import EpisodeRecord

BAR_WIDTH = 10
WIDE_ENOUGH_FOR_BARS = 110


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _bar(rate: float) -> str:
    filled = 0 if math.isnan(rate) else round(rate * BAR_WIDTH)
    return "█" * filled + "·" * (BAR_WIDTH - filled)


def _cells(row: dict[Hashable, Any], bars: bool) -> list[str]:
    """Success count, rate, interval, bar (where there is room), what is unfinished."""
    finished = int(row["successes"] + row["timeouts"])
    unfinished = [f"{int(row[kind])} {kind}" for kind in ("errors", "missing") if row[kind]]
    return [
        f"{int(row['successes'])}/{finished}",
        _percent(row["rate"]),
        "–" if math.isnan(row["low_95"]) else f"{_percent(row['low_95'])} – {_percent(row['high_95'])}",
        *([_bar(row["rate"])] if bars else []),
        ", ".join(unfinished),
    ]


def success_table(records: Sequence[EpisodeRecord], planned: dict[str, int], title: str, width: int) -> Table:
    """One row per task, one per suite.

    Args:
        width: of the terminal [characters]; a narrow one gets no bars.
    """
    bars = width >= WIDE_ENOUGH_FOR_BARS
    tasks, suites = task_frame(records, planned), suite_frame(records, planned)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("", justify="right", no_wrap=True, min_width=2)
    table.add_column("task", ratio=1)
    table.add_column("success", justify="right", no_wrap=True, min_width=7)
    table.add_column("%", justify="right", no_wrap=True, min_width=5)
    table.add_column("95 % interval", justify="right", no_wrap=True, min_width=12)
    if bars:
        table.add_column("", no_wrap=True, min_width=BAR_WIDTH)
    if (tasks[["errors", "missing"]].to_numpy() > 0).any():
        table.add_column("unfinished", no_wrap=True, min_width=10)
    columns = len(table.columns)
    for suite_row in suites.to_dict("records"):
        suite = str(suite_row["suite"])
        for row in tasks[tasks["suite"] == suite].to_dict("records"):
            name = Text(str(row["task"]).replace("_", " ") or "not run")
            cells: list[str | Text] = [str(row["task_index"]), name, *_cells(row, bars)]
            table.add_row(*cells[:columns])
        table.add_section()
        table.add_row(*["", suite, *_cells(suite_row, bars)][:columns], style="bold")
        table.add_section()
    return table


def print_results(console: Console, manifest: RunManifest, records: Sequence[EpisodeRecord], wall_s: float) -> None:
    """The table, what is missing, where the time went, and what a reader must know.

    Args:
        wall_s: the run's duration [s].
    """
    title = f"{manifest.policy} · protocol {manifest.protocol['name']} · {manifest.ensemble} · seed {manifest.seed}"
    console.print(success_table(records, manifest.planned_episodes, title, console.width))
    for row in suite_frame(records, manifest.planned_episodes).to_dict("records"):
        unfinished = row["errors"] + row["missing"]
        if unfinished:
            console.print(
                f"[bold]{row['suite']}: {unfinished} of {row['planned']} episodes have no result. With all of them counted as "
                f"failures: {_percent(row['rate_if_all_unfinished_failed'])} % (at least "
                f"{_percent(row['low_95_if_all_unfinished_failed'])} %).[/bold]"
            )
        if row["interval"].startswith("stratified"):
            console.print(
                f"{row['suite']}: its tasks have unequal numbers of finished episodes; its rate is the mean of theirs, "
                "with a stratified interval."
            )
    shares = time_shares(records)
    if shares and wall_s > 0:
        steps = sum(record.steps for record in records)
        parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items() if share >= 0.005)
        console.print(
            f"{len(records)} episodes in {wall_s:.0f} s ({60 * len(records) / wall_s:.1f} per minute, {steps / wall_s:.0f} steps/s); "
            f"workers' time: {parts}"
        )
    for warning in manifest.warnings:
        console.print(f"[bold yellow]Warning:[/bold yellow] {warning}")


def print_incidents(console: Console, events: Sequence[LogEvent]) -> None:
    """What went wrong and was dealt with, if anything did."""
    counts = Counter(event.event for event in events)
    lines = [
        (counts["session_started"] - 1, "resumed {}"),
        (counts["session_killed"], "killed from outside {}"),
        (counts["worker_replaced"], "a worker died or stalled and was replaced {}"),
        (counts["episode_repeated"], "an episode failed and was run again {}"),
    ]
    said = [text.format("once" if count == 1 else f"{count} times") for count, text in lines if count > 0]
    if said:
        console.print(f"On the way: {'; '.join(said)}. Details: log.jsonl", highlight=False)
