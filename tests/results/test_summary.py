from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from rich.console import Console

from results.statistics import wilson
from results.summary import suite_frame, task_frame, time_shares, write_summary
from results.table import print_results
from tasks.interface import EpisodeRecord, Outcome
from tests.examples import episode, manifest, record

PLANNED = {"libero_spatial/00": 4, "libero_spatial/01": 4, "libero_goal/02": 2}


OUTCOMES = {"s": Outcome.SUCCESS, "t": Outcome.TIMEOUT}


def records() -> list[EpisodeRecord]:
    outcomes = [Outcome.SUCCESS, Outcome.SUCCESS, Outcome.TIMEOUT]
    first = [record(episode(0, i), outcome) for i, outcome in enumerate(outcomes)]
    return [*first, record(episode(1, 0), Outcome.ERROR, error="died"), record(episode(1, 1), steps=80)]


def test_a_tasks_row() -> None:
    row = task_frame(records(), PLANNED).iloc[0]
    assert (row["planned"], row["successes"], row["timeouts"], row["errors"], row["missing"]) == (4, 2, 1, 0, 1)
    interval = wilson(2, 3)
    assert (row["rate"], row["low_95"], row["high_95"]) == (interval.rate, interval.low, interval.high)
    assert row["rate_if_all_unfinished_failed"] == 2 / 4


def test_an_error_is_no_failure() -> None:
    row = task_frame(records(), PLANNED).iloc[1]
    assert (row["rate"], row["errors"], row["missing"]) == (1.0, 1, 2)
    assert row["rate_if_all_unfinished_failed"] == 1 / 4


def test_a_suite_of_equal_tasks_pools_their_episodes() -> None:
    equal = [
        record(episode(task, i), o)
        for task, os in enumerate(("ss", "st"))
        for i, o in enumerate(OUTCOMES[letter] for letter in os)
    ]
    row = suite_frame(equal, {"libero_spatial/00": 2, "libero_spatial/01": 2}).iloc[0]
    interval = wilson(3, 4)
    assert (row["rate"], row["low_95"], row["high_95"], row["interval"]) == (
        3 / 4,
        interval.low,
        interval.high,
        "Wilson",
    )


def test_a_suite_of_unequal_tasks_is_their_mean() -> None:
    rows = suite_frame(records(), PLANNED)
    assert list(rows["suite"]) == ["libero_spatial", "libero_goal"]
    assert rows.iloc[0]["rate"] == (2 / 3 + 1) / 2
    assert rows.iloc[0]["interval"] == "stratified Wilson"
    assert rows.iloc[0]["low_95"] < 0.75 < rows.iloc[0]["high_95"] <= 1
    assert "its rate is the mean of theirs" in " ".join(printed().split())
    assert rows.iloc[0]["mean_steps_to_success"] == (100 + 100 + 80) / 3
    assert math.isnan(rows.iloc[1]["rate"])
    assert rows.iloc[1]["missing"] == 2


def test_tasks_that_were_planned_unequally_are_not_pooled() -> None:
    finished = [record(episode(t, i), OUTCOMES[o]) for t, os in enumerate(("ss", "tt")) for i, o in enumerate(os)]
    row = suite_frame(finished, {"libero_spatial/00": 6, "libero_spatial/01": 2}).iloc[0]
    assert (row["rate"], row["interval"]) == (0.75, "stratified Wilson")


def test_repeats_of_an_init_state_are_clustered() -> None:
    """Ten init states run twice with the same result say as much as ten episodes."""
    repeated = [
        record(episode(0, i, repeat=r), Outcome.SUCCESS if i < 7 else Outcome.TIMEOUT)
        for i in range(10)
        for r in range(2)
    ]
    row = task_frame(repeated, {"libero_spatial/00": 20}).iloc[0]
    interval = wilson(7, 10)
    assert row["interval"] == "Wilson, clustered by init state"
    assert (row["successes"], row["rate"]) == (14, 0.7)
    assert math.isclose(row["low_95"], interval.low)
    assert math.isclose(row["high_95"], interval.high)


def test_time_shares_sum_to_one() -> None:
    assert math.isclose(sum(time_shares(records()).values()), 1.0)
    assert time_shares([]) == {}


def test_the_files(tmp_path: Path) -> None:
    write_summary(tmp_path, manifest(PLANNED), records(), wall_s=12.0)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["suites"][0]["successes"] == 3
    assert summary["suites"][1]["rate"] is None
    with (tmp_path / "summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["task_index"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["low_95"]) == wilson(2, 3).low


def test_the_order_of_episodes_changes_nothing(tmp_path: Path) -> None:
    contents = []
    for ordered in (records(), records()[::-1]):
        write_summary(tmp_path, manifest(PLANNED), ordered, wall_s=12.0)
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert set(summary.pop("time")) == {"wall_s", "worker_shares"}
        contents.append((json.dumps(summary), (tmp_path / "summary.csv").read_bytes()))
    assert contents[0] == contents[1]


def printed(width: int = 80, mujoco: str = "3.2.3") -> str:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    print_results(console, manifest(PLANNED, mujoco), records(), wall_s=60.0)
    return console.export_text()


def test_the_table_fits_a_terminal_and_hides_nothing() -> None:
    text = printed()
    assert max(map(len, text.splitlines())) <= 80
    for part in ("2/3", "66.7", "20.8 – 93.9", "1 errors, 2 missing", "libero_spatial", "libero_goal"):
        assert part in text, text
    assert "libero_spatial: 4 of 8 episodes have no result" in text.replace("\n", " ")
    assert "37.5 %" in text


def test_the_table_warns_of_another_mujoco() -> None:
    assert "mujoco 3.4.0 is installed" in printed(mujoco="3.4.0").replace("\n", " ")
