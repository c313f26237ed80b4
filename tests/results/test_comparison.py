"""Two runs, pair by pair: who is better in words, what is refused and what is flagged."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest

from results.cli import ReportArguments, run
from results.comparison import ComparisonError, compare_records
from results.manifest import RunManifest, write_manifest
from results.records import to_json
from results.statistics import PairedCounts, newcombe_paired
from results.trace import trace_path, write_trace
from tasks.interface import EpisodeRecord, Outcome
from tests.examples import episode, manifest, record, trace

OUTCOMES = {"s": Outcome.SUCCESS, "f": Outcome.TIMEOUT}
PLANNED = {"libero_spatial/00": 30}


def records(letters: str, suite: str = "libero_spatial", repeats: int = 1) -> list[EpisodeRecord]:
    """Episode i: s success, f failure, e error, a space for none."""
    found = []
    for i, letter in enumerate(letters):
        spec = episode(0, i // repeats, suite, i % repeats)
        if letter == "e":
            found.append(record(spec, Outcome.ERROR, error="died"))
        elif letter != " ":
            found.append(record(spec, OUTCOMES[letter]))
    return found


def say(first: str, second: str) -> str:
    compared = compare_records(manifest(PLANNED), records(first), manifest(PLANNED), records(second))
    return compared.pairings[0].sentence("A", "B")


def test_counts_p_and_interval_are_those_of_the_pairs() -> None:
    first, second = "s" * 10 + "s" * 3 + "f" * 12 + "f" * 5, "s" * 10 + "f" * 3 + "s" * 12 + "f" * 5
    compared = compare_records(manifest(PLANNED), records(first), manifest(PLANNED), records(second))
    (pairing,) = compared.pairings
    assert pairing.counts == PairedCounts(both=10, first_only=3, second_only=12, neither=5)
    assert pairing.p == pytest.approx(binomtest(3, 15).pvalue)
    assert pairing.difference == newcombe_paired(pairing.counts)
    assert compared.first_only == tuple(f"libero_spatial/00/{i:02d}/r0" for i in (10, 11, 12))
    assert len(compared.second_only) == 12
    assert not compared.warnings
    assert not compared.repeats


def test_it_is_said_in_words() -> None:
    better = say("s" * 10 + "s" * 3 + "f" * 12 + "f" * 5, "s" * 10 + "f" * 3 + "s" * 12 + "f" * 5)
    assert better.startswith(
        "B is better than A: 12 episodes against 3, p = 0.035 (B minus A: +30.0 points, 95 % interval +"
    )
    assert say("f" * 12 + "s" * 18, "s" * 12 + "f" * 3 + "s" * 15).startswith("B is better than A")
    assert say("s" * 30, "f" * 12 + "s" * 18).startswith("A is better than B: 12 episodes against 0, p < 0.001")
    assert say("s" * 5 + "f" * 25, "f" * 3 + "s" * 4 + "f" * 23).startswith(
        "No difference is shown: A alone succeeded in 3"
    )
    assert say("sf", "sf") == "Both succeeded and failed in the same episodes, 1 and 1 of 2."


def test_episodes_without_a_result_are_left_out_and_counted() -> None:
    compared = compare_records(manifest(PLANNED), records("sse s"), manifest(PLANNED), records("sffs"))
    assert compared.pairings[0].counts.total == 2
    assert compared.unpaired == 3  # the third and the fifth of one, the fourth of the other


def test_several_suites_and_all_of_them() -> None:
    both = manifest({"libero_spatial/00": 2, "libero_goal/00": 2})
    ours = [*records("ss"), *records("sf", "libero_goal")]
    theirs = [*records("sf"), *records("ff", "libero_goal")]
    compared = compare_records(both, ours, both, theirs)
    assert [(p.name, p.counts.total) for p in compared.pairings] == [
        ("libero_spatial", 2),
        ("libero_goal", 2),
        ("all", 4),
    ]


def test_repeats_of_an_init_state_change_sides_together() -> None:
    planned = manifest({"libero_spatial/00": 12})
    compared = compare_records(planned, records("f" * 12, repeats=2), planned, records("s" * 12, repeats=2))
    assert compared.repeats
    assert compared.pairings[0].p == pytest.approx(2 / 2**6)  # six init states, not twelve episodes


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"protocol": {"name": "openpi"}}, r"protocol, name: openvla in the first, openpi in the second"),
        ({"versions": {"mujoco": "3.3.3"}}, r"mujoco: 3.2.3 in the first, 3.3.3 in the second"),
    ],
)
def test_another_simulation_is_refused_by_name(changes: dict[str, object], text: str) -> None:
    other = dataclasses.replace(manifest(PLANNED), **changes)  # type: ignore[arg-type]
    with pytest.raises(ComparisonError, match=text):
        compare_records(manifest(PLANNED), records("s"), other, records("s"))


def test_other_prompts_and_renderers_are_flagged_by_name() -> None:
    other = dataclasses.replace(
        manifest(PLANNED),
        instructions={"libero_spatial/00": "take the bowl", "libero_goal/03": "of another plan"},
        renderer="egl: H100",
    )
    compared = compare_records(manifest(PLANNED), records("s"), other, records("s"))
    prompts, renderer = compared.warnings
    assert prompts == "prompts, libero_spatial/00: pick up the bowl in the first, take the bowl in the second"
    assert "renderer" in renderer
    assert "egl: H100 in the second" in renderer


def test_runs_without_a_common_episode() -> None:
    with pytest.raises(
        ComparisonError, match=r"no finished episode in common: the first has 1, such as libero_spatial/00/00/r0"
    ):
        compare_records(manifest(PLANNED), records("s"), manifest(PLANNED), records("e"))


def write_run(folder: Path, of: RunManifest, episodes: list[EpisodeRecord]) -> Path:
    folder.mkdir()
    write_manifest(folder / "manifest.json", of)
    (folder / "episodes.jsonl").write_text("".join(f"{to_json(r)}\n" for r in episodes))
    return folder


def command(*runs: Path, output: Path | None = None) -> tuple[int, str, str]:
    with Path("/dev/null").open("w") as nowhere:
        out, errors = (Console(width=100, record=True, file=nowhere) for _ in range(2))
        status = run(ReportArguments(runs=runs, output=output), out=out, errors=errors)
        return status, " ".join(out.export_text().split()), " ".join(errors.export_text().split())


def test_the_command(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a[b]", manifest(PLANNED), records("s" * 3 + "f" * 12))
    second = write_run(tmp_path / "second", manifest(PLANNED), records("f" * 3 + "s" * 12))
    traced = trace("libero_spatial/00/01/r0", steps=9)
    moved = dataclasses.replace(traced, actions=traced.actions + 1.0, qpos=traced.qpos + np.eye(10, 5, k=-4))
    for folder, of in ((first, traced), (second, moved)):
        write_trace(folder / trace_path(traced.episode_id), of)
    status, out, _ = command(first, second)
    assert status == 0
    assert "second is better than a[b]: 12 episodes against 3, p = 0.035" in out
    assert "Only a[b] succeeded in: libero_spatial/00/00/r0, libero_spatial/00/01/r0, libero_spatial/00/02/r0" in out
    text = (second / "comparisons" / "a[b].md").read_text()
    assert "| libero_spatial | 15 | 0 | 3 | 12 | 0 | +60.0 |" in text
    assert len(re.findall(r"^- `libero_spatial", text, re.M)) == 15
    assert "libero_spatial/00/01/r0: other actions from step 0, elsewhere from step 3" in out
    assert "- `libero_spatial/00/01/r0`: other actions from step 0, elsewhere from step 3" in text
    status, out, _ = command(first)
    assert status == 0
    assert (first / "report.md").is_file()
    assert (first / "summary.json").is_file()


def test_the_command_refuses_what_is_no_run(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "a", manifest(PLANNED), records("s"))
    for runs, text in (
        ((tmp_path / "nothing",), "not a run manifest"),
        ((whole, tmp_path / "nothing"), "not a run manifest"),
        ((whole, whole, whole), "expected one run directory, or two to compare"),
    ):
        status, _, errors = command(*runs)
        assert status == 2
        assert text in errors
    (whole / "episodes.jsonl").write_text("{}\n")
    status, _, errors = command(whole)
    assert status == 2
    assert "line 1 is damaged" in errors
