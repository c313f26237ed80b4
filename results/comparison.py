"""Two runs of the same episodes, pair by pair: which is better, by how much, and in which episodes they differ."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.manifest import RunManifest, differences
from results.run_directory import RunDirectory
from results.statistics import (
    Interval,
    PairedCounts,
    mcnemar,
    newcombe_paired,
    paired_design_effect,
)
from tasks.interface import EpisodeRecord, Outcome

SIGNIFICANT = 0.05
MEANT_TO_DIFFER = (
    *("plan_sha256", "shard", "planned_episodes", "policy", "policy_code_sha256", "checkpoint_sha256"),
    *("policy_metadata", "dtype", "ensemble", "seed", "batch_size"),
)
"""What a comparison is about, or what does not matter where only episodes of both are counted."""


class ComparisonError(ValueError):
    """The runs' results must not be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """The episodes of a suite, or of all, that both runs finished."""

    name: str
    """The suite; `all` for all of several."""
    counts: PairedCounts
    difference: Interval
    """The second's rate minus the first's."""
    p: float
    """Exact, two-sided."""

    def sentence(self, first: str, second: str) -> str:
        """What it says, in words.

        Args:
            first: what to call the first run.
            second: what to call the second.
        """
        counts, interval = self.counts, self.difference
        if not counts.total:
            return "No episode was finished by both."
        if not counts.first_only + counts.second_only:
            return (
                f"Both succeeded and failed in the same episodes, {counts.both} and {counts.neither} of {counts.total}."
            )
        better, worse, more, fewer = (
            (second, first, counts.second_only, counts.first_only)
            if counts.second_only >= counts.first_only
            else (first, second, counts.first_only, counts.second_only)
        )
        difference = (
            f"{second} minus {first}: {100 * interval.rate:+.1f} points, 95 % interval {100 * interval.low:+.1f} to "
            f"{100 * interval.high:+.1f}, {counts.total} episodes"
        )
        p = f"p {'<' if self.p < 0.001 else '='} {max(self.p, 0.001):.2g}"
        if self.p < SIGNIFICANT:
            return f"{better} is better than {worse}: {more} episodes against {fewer}, {p} ({difference})."
        return (
            f"No difference is shown: {better} alone succeeded in {more} episodes, {worse} alone in {fewer}, {p} "
            f"({difference}). They may be equal, or differ by as much as the interval says."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What two runs say about each other."""

    pairings: tuple[Pairing, ...]
    """One per suite, then all together where there are several."""
    first_only: tuple[str, ...]
    """Ids of the episodes in which the first run alone succeeded, in order."""
    second_only: tuple[str, ...]
    unpaired: int
    """Episodes with a result in one run only."""
    warnings: tuple[str, ...]
    """What else differs between the runs, and could be behind a difference."""
    repeats: bool
    """Whether init states were run repeatedly, and so were clustered."""


def compare(first: RunDirectory, second: RunDirectory) -> Comparison:
    """Pair the episodes of two runs.

    Raises:
        ComparisonError: protocol, mujoco or robosuite differ, or no episode is in both.
        ValueError: one of the folders holds no run, or is damaged.
    """
    return compare_records(first.manifest(), first.records(), second.manifest(), second.records())


def compare_records(
    first: RunManifest,
    first_records: Sequence[EpisodeRecord],
    second: RunManifest,
    second_records: Sequence[EpisodeRecord],
) -> Comparison:
    """`compare` for runs already read."""
    _require_same_simulation(first, second)
    ours, theirs = (
        {r.spec.episode_id: r for r in records if r.outcome is not Outcome.ERROR}
        for records in (first_records, second_records)
    )
    suites = list(dict.fromkeys(task.split("/")[0] for task in first.planned_episodes))
    common = sorted(ours.keys() & theirs.keys(), key=lambda i: (suites.index(i.split("/")[0]), i))
    if not common:
        raise ComparisonError(
            f"the runs have no finished episode in common: the first has {_some(ours)}, the second {_some(theirs)}"
        )
    pairs = {
        episode_id: (ours[episode_id].outcome is Outcome.SUCCESS, theirs[episode_id].outcome is Outcome.SUCCESS)
        for episode_id in common
    }
    by_suite: dict[str, list[str]] = defaultdict(list)
    for episode_id in common:
        by_suite[episode_id.split("/")[0]].append(episode_id)
    pairings = [_pairing(suite, {i: pairs[i] for i in ids}) for suite, ids in by_suite.items()]
    if len(pairings) > 1:
        pairings.append(_pairing("all", pairs))
    return Comparison(
        pairings=tuple(pairings),
        first_only=tuple(i for i in common if pairs[i] == (True, False)),
        second_only=tuple(i for i in common if pairs[i] == (False, True)),
        unpaired=len(ours.keys() ^ theirs.keys()),
        warnings=tuple(
            differences(
                *_on_common_tasks(first, second), ignore=MEANT_TO_DIFFER, names=("in the first", "in the second")
            )
        ),
        repeats=len({_cluster(i) for i in common}) < len(common),
    )


def _on_common_tasks(first: RunManifest, second: RunManifest) -> tuple[RunManifest, RunManifest]:
    """Without the prompts of tasks that only one of them ran."""
    common = first.instructions.keys() & second.instructions.keys()
    ours, theirs = (
        dataclasses.replace(m, instructions={task: m.instructions[task] for task in sorted(common)})
        for m in (first, second)
    )
    return ours, theirs


def _require_same_simulation(first: RunManifest, second: RunManifest) -> None:
    different = differences(
        first,
        second,
        ignore=(*MEANT_TO_DIFFER, "instructions", "cameras", "image_convention", "renderer", "versions"),
        names=("in the first", "in the second"),
    )
    different += [
        f"{package}: {first.versions.get(package, 'missing')} in the first, {second.versions.get(package, 'missing')} in the second"
        for package in ("mujoco", "robosuite")
        if first.versions.get(package) != second.versions.get(package)
    ]
    if different:
        raise ComparisonError(
            "the runs were not made in the same simulation, so their episodes cannot be paired:\n  "
            + "\n  ".join(different)
        )


def _pairing(name: str, pairs: Mapping[str, tuple[bool, bool]]) -> Pairing:
    outcomes = list(pairs.values())
    counts = PairedCounts(
        both=outcomes.count((True, True)),
        first_only=outcomes.count((True, False)),
        second_only=outcomes.count((False, True)),
        neither=outcomes.count((False, False)),
    )
    clusters: dict[str, list[int]] = defaultdict(list)
    for episode_id, (a, b) in pairs.items():
        clusters[_cluster(episode_id)].append(int(b) - int(a))
    totals = [sum(values) for values in clusters.values()]
    effect = paired_design_effect(counts, totals, [len(values) for values in clusters.values()])
    return Pairing(
        name=name,
        counts=counts,
        difference=newcombe_paired(counts, design_effect=effect),
        p=mcnemar(totals),
    )


def _cluster(episode_id: str) -> str:
    """Suite, task and init state."""
    return episode_id.rsplit("/", 1)[0]


def _some(records: Mapping[str, EpisodeRecord]) -> str:
    return f"{len(records)}, such as {', '.join(list(records)[:2])}" if records else "none"
