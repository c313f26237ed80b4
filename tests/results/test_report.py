"""`report.md` says what the summary says, in words, tables and plots."""

from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from results.measures import measure_motion, motions
from results.report import latex_row, write_report
from results.summary import suite_frame
from results.trace import TraceError, read_actions, trace_path, write_trace
from tasks.interface import EpisodeRecord, Outcome
from tests.examples import episode, manifest, record, trace

PLANNED = {"libero_spatial/00": 3, "libero_spatial/01": 3, "libero_10/02": 2}


def records() -> list[EpisodeRecord]:
    first = [
        record(episode(0, i), outcome, steps=80 + i)
        for i, outcome in enumerate([Outcome.SUCCESS] * 2 + [Outcome.TIMEOUT])
    ]
    second = [record(episode(1, 0), Outcome.ERROR, error="died"), record(episode(1, 1), steps=60)]
    return [*first, *second, record(episode(2, 0, "libero_10"), Outcome.TIMEOUT, steps=520)]


def report(folder: Path, of: list[EpisodeRecord] | None = None, **changes: object) -> str:
    write_report(folder, dataclasses.replace(manifest(PLANNED), **changes), of or records(), wall_s=30.0)  # type: ignore[arg-type]
    return (folder / "report.md").read_text()


def test_it_says_rates_intervals_and_what_is_missing(tmp_path: Path) -> None:
    text = report(tmp_path)
    row = suite_frame(records(), PLANNED).iloc[0]
    low, high = (f"{100 * row[key]:.1f}" for key in ("low_95", "high_95"))
    assert (
        "- **libero_spatial: 83.3 %** (the mean of its tasks; 3 of 4 episodes; 95 % interval "
        f"{low} – {high}). **2 of 6 episodes have no result**" in text
    )
    assert "with all of them counted as failures: 50.0 %" in text
    assert "| 0 | pick up the bowl | 2/3 | 66.7 | 20.8 – 93.9 | 0 | 0 | 80 |" in text
    assert "- `libero_spatial/00/02/r0`: no success in 82 steps" in text
    assert "- `libero_spatial/01/00/r0`: error" in text
    assert "6 episodes in 30 s, 12.0 per minute" in text


def test_a_run_without_episodes_has_a_report(tmp_path: Path) -> None:
    write_report(tmp_path, manifest(PLANNED), [], wall_s=0.0)
    text = (tmp_path / "report.md").read_text()
    assert "libero_spatial: no episode of 6 has a result." in text
    assert "nan" not in text


def test_a_run_that_has_not_ended_says_so(tmp_path: Path) -> None:
    write_report(tmp_path, manifest(PLANNED), records(), wall_s=0.0)
    assert "6 episodes (no session has ended yet). Of the workers' time: " in (tmp_path / "report.md").read_text()


def test_the_plots_are_svg_and_the_same_every_time(tmp_path: Path) -> None:
    plots = []
    for order in (records(), records()[::-1]):
        report(tmp_path, order)
        plots.append([(tmp_path / "plots" / name).read_bytes() for name in ("success.svg", "steps_to_success.svg")])
    assert plots[0] == plots[1]
    for content in plots[0]:
        assert ET.fromstring(content).tag.endswith("svg")
    assert b"0 pick up the bowl" in plots[0][0].replace(b"  ", b" ")


def test_names_cannot_break_the_table_or_the_page(tmp_path: Path) -> None:
    text = report(tmp_path, policy="my|pol<script>_x", checkpoint="a`b|c", checkpoint_sha256="ab" * 32)
    assert r"# my\|pol\<script\>\_x: libero_spatial, libero_10" in text
    assert r"| Checkpoint | a\`b\|c (sha256 abababababab…) |" in text


def test_videos_are_linked(tmp_path: Path) -> None:
    failed = dataclasses.replace(record(episode(0, 2), Outcome.TIMEOUT), video="videos/libero_spatial/00/02-r0.mp4")
    assert "no success in 100 steps, [video](videos/libero_spatial/00/02-r0.mp4)" in report(tmp_path, [failed])


def test_a_papers_row() -> None:
    suites = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
    planned = {f"{suite}/00": 4 for suite in suites}
    everything = [
        record(episode(0, i, suite), Outcome.SUCCESS if i <= k else Outcome.TIMEOUT)
        for k, suite in enumerate(suites)
        for i in range(4)
    ]
    of = dataclasses.replace(manifest(planned), policy="my_policy:make")
    lines = latex_row(of, suite_frame(everything, planned)).splitlines()
    assert lines[0] == "% & Spatial & Object & Goal & Long & Average; protocol openvla"
    assert lines[1].startswith("% 95% intervals: Spatial 4.6-69.9 of 4; Object")
    assert lines[-1] == r"my\_policy:make & 25.0 & 50.0 & 75.0 & 100.0 & 62.5 \\"
    partly = latex_row(of, suite_frame(everything[:3], {"libero_spatial/00": 4})).splitlines()
    assert partly[-1] == r"my\_policy:make & 33.3 & -- & -- & -- & -- \\"
    assert "% 1 episodes have no result" in partly


def test_motion() -> None:
    actions = np.zeros((4, 7))
    actions[:, 0] = [0.0, 0.5, 0.0, 5.0]  # clipped to 1
    actions[:, 6] = [-1, -1, 1, -1]
    motion = measure_motion(actions)
    assert motion.action_change == pytest.approx((0.5 + 0.5 + 1.0) / (3 * 6))
    assert motion.gripper_switches == 2
    assert math.isnan(measure_motion(actions[:1]).action_change)
    assert measure_motion(actions[:0]).gripper_switches == 0


def test_actions_are_read_from_traces_and_missing_ones_are_passed_over(tmp_path: Path) -> None:
    kept = trace()
    write_trace(tmp_path / trace_path(kept.episode_id), kept)
    np.testing.assert_array_equal(read_actions(tmp_path / trace_path(kept.episode_id)), kept.actions)
    found = motions(tmp_path, records())
    assert list(found) == [kept.episode_id]
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(TraceError, match="not a readable trace"):
        read_actions(damaged)
