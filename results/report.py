"""`report.md`: a run in words, tables and plots, for people; and the comparison of two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from results.comparison import Comparison
from results.divergence import APART, Divergence
from results.files import write_atomically
from results.manifest import RunManifest
from results.measures import motions
from results.plots import write_steps_plot, write_success_plot
from results.summary import episode_frame, suite_frame, task_frame, time_shares
from results.tags import TagError, count_tags, read_reviews
from tasks.interface import CONTROL_HZ, EpisodeRecord, Outcome

LATEX_SUITES = {
    "libero_spatial": "Spatial",
    "libero_object": "Object",
    "libero_goal": "Goal",
    "libero_10": "Long",
}
"""The columns of the papers' table, in their order; then the average."""
MOST_LISTED = 50


def write_report(folder: Path, manifest: RunManifest, records: Sequence[EpisodeRecord], wall_s: float) -> None:
    """Write `report.md` and `plots/`: a function of the episodes and the traces, whatever their order, but for times.

    Args:
        folder: the run directory.
        wall_s: the duration of all the run's sessions [s].

    Raises:
        OSError: they cannot be written.
    """
    ordered = sorted(records, key=lambda record: record.spec.episode_id)
    tasks, suites = task_frame(ordered, manifest.planned_episodes), suite_frame(ordered, manifest.planned_episodes)
    write_success_plot(folder / "plots" / "success.svg", tasks, suites)
    write_steps_plot(folder / "plots" / "steps_to_success.svg", episode_frame(ordered))
    parts = [
        f"# {_escaped(manifest.policy)}: {', '.join(suites['suite'])}",
        _what_it_is(manifest),
        _bullets([_suite_sentence(row) for row in suites.to_dict("records")]),
        _bullets([f"**Warning**: {_escaped(warning)}" for warning in manifest.warnings]),
        "## Success",
        _success_table(tasks, suites),
        "![Success per task](plots/success.svg)",
        "Intervals are Wilson's, 95 %. A suite of equally many episodes per task is pooled; otherwise its rate is the mean of its "
        "tasks' and its interval stratified (Yan and Su 2010). Repeats of an init state are clustered. Errors are not failures.",
        "![Curve of steps to success](plots/steps_to_success.svg)",
        "## How it moved",
        _behaviour_table(folder, ordered, suites),
        "*Action change*: mean absolute change of the six motion entries between successive actions, of a range of 2.",
        "## Where the time went",
        _time_sentence(ordered, wall_s),
        "## Failures",
        _tags(folder, ordered),
        _failures(ordered),
        "## For a paper",
        f"```latex\n{latex_row(manifest, suites)}\n```",
    ]
    write_atomically(folder / "report.md", ("\n\n".join(part for part in parts if part) + "\n").encode())


def latex_row(manifest: RunManifest, suites: pd.DataFrame) -> str:
    """The row of LIBERO papers' tables: Spatial & Object & Goal & Long & Average, in percent; `--` for suites that were not run.

    Args:
        suites: of `suite_frame`.
    """
    rates = {str(row["suite"]): row for row in suites.to_dict("records") if not math.isnan(row["rate"])}
    cells, notes = [], []
    for suite, name in LATEX_SUITES.items():
        row = rates.get(suite)
        cells.append("--" if row is None else f"{100 * row['rate']:.1f}")
        if row is not None:
            finished = int(row["successes"] + row["timeouts"])
            notes.append(f"{name} {100 * row['low_95']:.1f}-{100 * row['high_95']:.1f} of {finished}")
    whole = all(suite in rates for suite in LATEX_SUITES)
    average = f"{100 * sum(rates[suite]['rate'] for suite in LATEX_SUITES) / len(LATEX_SUITES):.1f}" if whole else "--"
    unfinished = int(suites["errors"].sum() + suites["missing"].sum())
    lines = [f"% {' & '.join(('', *LATEX_SUITES.values(), 'Average')).strip()}; protocol {manifest.protocol['name']}"]
    if notes:
        lines.append(f"% 95% intervals: {'; '.join(notes)}")
    if unfinished:
        lines.append(f"% {unfinished} episodes have no result")
    name = (
        manifest.policy.replace("\\", "/")
        .replace("_", r"\_")
        .replace("%", r"\%")
        .replace("&", r"\&")
        .replace("#", r"\#")
    )
    return "\n".join([*lines, f"{name} & {' & '.join((*cells, average))} \\\\"])


def comparison_report(comparison: Comparison, first: str, second: str, parted: Mapping[str, Divergence]) -> str:
    """Two runs of the same episodes, in Markdown.

    Args:
        first: what to call the first run.
        second: what to call the second.
        parted: where episodes that ended otherwise part, as far as known.
    """
    first, second = _escaped(first), _escaped(second)
    rows = [
        (
            pairing.name,
            str(pairing.counts.total),
            str(pairing.counts.both),
            str(pairing.counts.first_only),
            str(pairing.counts.second_only),
            str(pairing.counts.neither),
            f"{100 * pairing.difference.rate:+.1f}",
            f"{100 * pairing.difference.low:+.1f} – {100 * pairing.difference.high:+.1f}",
            f"{pairing.p:.2g}",
        )
        for pairing in comparison.pairings
    ]
    head = ("", "episodes", "both", f"{first} only", f"{second} only", "neither", "difference", "95 % interval", "p")
    notes = [f"**Differs beside the policy**: {_escaped(warning)}" for warning in comparison.warnings]
    if comparison.unpaired:
        notes.append(f"{comparison.unpaired} episodes have a result in one run only, and are left out.")
    parts = [
        f"# {second} against {first}",
        _bullets([f"{_named(p.name)}{p.sentence(first, second)}" for p in comparison.pairings]),
        _bullets(notes),
        _table(head, rows),
        "Episodes are paired by id: same task, same init state. p is exact and two-sided (McNemar"
        + (", init states changing sides as a whole" if comparison.repeats else "")
        + "); the interval of the difference, second minus first, is Newcombe's (1998, method 10). This compares two sets of weights. "
        "That one architecture is better than another takes at least three training seeds of each, and their spread.",
        f"## Only {first} succeeded ({len(comparison.first_only)})",
        _bullets([_where(i, parted) for i in comparison.first_only]) or "None.",
        f"## Only {second} succeeded ({len(comparison.second_only)})",
        _bullets([_where(i, parted) for i in comparison.second_only]) or "None.",
        f"Elsewhere: a joint or an object by more than {APART} rad or m." if parted else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _where(episode_id: str, parted: Mapping[str, Divergence]) -> str:
    known = parted.get(episode_id)
    return f"`{episode_id}`" + (f": {known}" if known is not None else "")


def _named(suite: str) -> str:
    return f"{'All suites' if suite == 'all' else suite}: "


def _what_it_is(manifest: RunManifest) -> str:
    rows = [
        (
            "Checkpoint",
            f"{manifest.checkpoint} (sha256 {manifest.checkpoint_sha256[:12]}…)" if manifest.checkpoint else "",
        ),
        ("Protocol", str(manifest.protocol["name"])),
        ("Execution", f"{manifest.ensemble}, seed {manifest.seed}, {manifest.dtype}, batch {manifest.batch_size}"),
        ("Cameras", ", ".join(manifest.cameras) or "none"),
        ("Renderer", manifest.renderer),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ("Revision", manifest.git_revision),
        ("Machine", manifest.machine),
        ("Begun", manifest.started_utc),
        ("Shard", manifest.shard),
    ]
    return _table(("", ""), [(name, _escaped(value)) for name, value in rows if value])


def _suite_sentence(row: dict[Any, Any]) -> str:
    finished = int(row["successes"] + row["timeouts"])
    unfinished = int(row["errors"] + row["missing"])
    if not finished:
        return f"{row['suite']}: no episode of {row['planned']} has a result."
    mean = "the mean of its tasks; " if row["interval"].startswith("stratified") else ""
    text = (
        f"**{row['suite']}: {100 * row['rate']:.1f} %** ({mean}{int(row['successes'])} of {finished} episodes; 95 % interval "
        f"{100 * row['low_95']:.1f} – {100 * row['high_95']:.1f})"
    )
    if not unfinished:
        return f"{text}."
    return (
        f"{text}. **{unfinished} of {row['planned']} episodes have no result**; with all of them counted as failures: "
        f"{100 * row['rate_if_all_unfinished_failed']:.1f} %."
    )


def _success_table(tasks: pd.DataFrame, suites: pd.DataFrame) -> str:
    rows = []
    for suite in suites.to_dict("records"):
        for task in tasks[tasks["suite"] == suite["suite"]].to_dict("records"):
            name = _escaped(str(task["task"]).replace("_", " ")) or "not run"
            rows.append((str(task["task_index"]), name, *_rate_cells(task)))
        rows.append(("", f"**{suite['suite']}**", *_rate_cells(suite)))
    return _table(("", "task", "success", "%", "95 % interval", "errors", "missing", "steps to success"), rows)


def _rate_cells(row: dict[Any, Any]) -> tuple[str, ...]:
    finished = int(row["successes"] + row["timeouts"])
    return (
        f"{int(row['successes'])}/{finished}",
        _number(100 * row["rate"]),
        f"{_number(100 * row['low_95'])} – {_number(100 * row['high_95'])}" if finished else "–",
        str(int(row["errors"])),
        str(int(row["missing"])),
        _number(row["mean_steps_to_success"], 0),
    )


def _behaviour_table(folder: Path, records: Sequence[EpisodeRecord], suites: pd.DataFrame) -> str:
    moved = motions(folder, records)
    episodes = episode_frame(records)
    episodes["action_change"] = [m.action_change if (m := moved.get(i)) else math.nan for i in episodes["episode_id"]]
    episodes["switches"] = [m.gripper_switches if (m := moved.get(i)) else math.nan for i in episodes["episode_id"]]
    rows = []
    for suite in suites["suite"]:
        group = episodes[(episodes["suite"] == suite) & ~episodes["error"].astype(bool)]
        successes = group[group["success"].astype(bool)]
        steps = group["steps"].sum()
        rows.append(
            (
                str(suite),
                f"{_number(successes['steps'].median() / CONTROL_HZ)} ({_number(successes['steps'].mean() / CONTROL_HZ)})",
                _number(group["queries"].mean()),
                _number(group["action_change"].mean(), 3),
                _number(group["switches"].mean()),
                _number(100 * group["clipped_actions"].sum() / steps if steps else math.nan),
            )
        )
    head = (
        *("", "seconds to success, median (mean)", "queries per episode", "action change"),
        *("gripper switches per episode", "actions clipped [%]"),
    )
    return _table(head, rows)


def _time_sentence(records: Sequence[EpisodeRecord], wall_s: float) -> str:
    shares = time_shares(records)
    if not shares:
        return "Nothing ran."
    parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items() if share >= 0.005)
    speed = (
        f" in {wall_s:.0f} s, {60 * len(records) / wall_s:.1f} per minute"
        if wall_s > 0
        else " (no session has ended yet)"
    )
    return f"{len(records)} episodes{speed}. Of the workers' time: {parts}."


def _tags(folder: Path, records: Sequence[EpisodeRecord]) -> str:
    """What people saw, where anybody looked."""
    try:
        reviews = read_reviews(folder)
    except TagError as error:
        return f"**The reviews cannot be read**: {_escaped(str(error))}"
    if not reviews:
        return ""
    failed = {record.spec.episode_id for record in records if record.outcome is Outcome.TIMEOUT}
    rows = [(tag, str(count)) for tag, count in count_tags(reviews).items()]
    notes = [f"`{key}`: {_escaped(said.note)}" for key, said in reviews.items() if said.note]
    looked = (
        f"{len(failed & reviews.keys())} of {len(failed)} failures were reviewed; an episode may have several tags."
    )
    return "\n\n".join(
        part for part in (looked, _table(("seen", "episodes"), rows) if rows else "", _bullets(notes)) if part
    )


def _failures(records: Sequence[EpisodeRecord]) -> str:
    failed = [record for record in records if record.outcome is not Outcome.SUCCESS]
    if not failed:
        return "None."
    lines = [
        f"`{record.spec.episode_id}`: {'error' if record.outcome is Outcome.ERROR else f'no success in {record.steps} steps'}"
        + (f", [video]({record.video})" if record.video else "")
        for record in failed[:MOST_LISTED]
    ]
    more = f"\n\n… and {len(failed) - MOST_LISTED} more, in `episodes.jsonl`." if len(failed) > MOST_LISTED else ""
    return _bullets(lines) + more


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _number(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _escaped(text: str) -> str:
    """Text that Markdown leaves alone."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
