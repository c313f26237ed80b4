"""Which episodes are attempted, and which become demonstrations: the same whatever the order in which they end."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from harness.collecting.arguments import CollectArguments
from harness.collecting.attempts import SPARE_ATTEMPTS, Attempts, Queue
from tasks.interface import EpisodeRecord, EpisodeSpec, Outcome, Sampled
from tasks.protocols import find_protocol
from tasks.suites import load_suite
from tests.examples import record

TASK = load_suite("libero_spatial")[3]


def attempts(**arguments: object) -> Attempts:
    chosen = CollectArguments(output=Path("x"), **arguments)  # type: ignore[arg-type]
    return Attempts(TASK, find_protocol("openvla"), chosen)


def result(spec: EpisodeSpec, outcome: Outcome) -> EpisodeRecord:
    return dataclasses.replace(record(outcome=outcome), spec=spec)


def seed(spec: EpisodeSpec) -> int:
    return spec.init.seed  # type: ignore[union-attr]


def collect(task: Attempts, failing: set[int], order: random.Random) -> list[int]:
    """The seeds of the demonstrations, with attempts that end in any order."""
    records: dict[str, EpisodeRecord] = {}
    queue = Queue([task], records)
    running = queue.first
    while running:
        spec = running.pop(order.randrange(len(running)))
        outcome = Outcome.TIMEOUT if seed(spec) in failing else Outcome.SUCCESS
        records[spec.episode_id] = result(spec, outcome)
        running += queue.after(records[spec.episode_id])
    assert not task.due(records), "nothing was left out"
    return [seed(kept.spec) for kept in task.kept(records)]


def test_failures_are_replaced_by_the_next_seeds() -> None:
    task = attempts(demos_per_task=4, first_seed=100)
    assert [seed(spec) for spec in task.due({})] == [100, 101, 102, 103]
    for number in range(5):
        assert collect(task, {101, 104}, random.Random(number)) == [100, 102, 103, 105]


def test_a_failure_is_made_up_for_at_once_and_only_once() -> None:
    task = attempts(demos_per_task=3, first_seed=100)
    records: dict[str, EpisodeRecord] = {}
    queue = Queue([task], records)
    first, second, third = queue.first

    def after(spec: EpisodeSpec, outcome: Outcome) -> list[int]:
        records[spec.episode_id] = result(spec, outcome)
        return [seed(more) for more in queue.after(records[spec.episode_id])]

    assert after(third, Outcome.TIMEOUT) == [103]
    assert after(first, Outcome.SUCCESS) == []
    assert after(second, Outcome.ERROR) == [104]


def test_a_session_that_was_cut_off_goes_on_where_it_was() -> None:
    task = attempts(demos_per_task=3, first_seed=0)
    records = {s.episode_id: result(s, Outcome.SUCCESS) for s in [task.spec(0), task.spec(2)]}
    assert [seed(spec) for spec in task.due(records)] == [1]


def test_a_hopeless_task_is_given_up() -> None:
    task = attempts(demos_per_task=2)
    assert collect(task, set(range(20_000)), random.Random(0)) == []
    assert task.limit == 3 * 2 + SPARE_ATTEMPTS


def test_failures_are_demonstrations_where_a_policy_drives_but_errors_never(tmp_path: Path) -> None:
    task = attempts(demos_per_task=2, checkpoint=tmp_path, relabel="expert", first_seed=0)
    records = {
        task.spec(0).episode_id: result(task.spec(0), Outcome.TIMEOUT),
        task.spec(1).episode_id: result(task.spec(1), Outcome.ERROR),
    }
    assert [seed(kept.spec) for kept in task.kept(records)] == [0]
    assert [seed(spec) for spec in task.due(records)] == [2]


def test_there_are_fifty_official_init_states() -> None:
    task = attempts(demos_per_task=50, init="official")
    assert task.spec(49).episode_id == "libero_spatial/03/49/r0"
    with pytest.raises(ValueError, match=r"has 50 init states, 51 demonstrations were asked for\. Use --init sampled"):
        attempts(demos_per_task=51, init="official")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"demos_per_task": 0}, "--demos-per-task: expected at least 1, got 0"),
        ({"noise": 4.0}, r"--noise: expected 0 \(none\) to 3, got 4.0"),
        ({"expert_share": 1.5}, "--expert-share: expected 0 to 1, got 1.5"),
        ({"size": 4}, "--size: expected 16 to 1024 pixels, got 4"),
        ({"first_seed": -1}, "--first-seed: expected 0 or more, got -1"),
        ({"misplaced": 1.5}, "--misplaced: expected a probability, 0 to 1, got 1.5"),
        ({"misplaced": 0.1, "relabel": "expert"}, "--misplaced: only the expert is led astray"),
        ({"spread": 6.0}, r"--spread: expected 0 .* to 5 times as wide, and 1 with --init official, got 6"),
        ({"spread": 2.0, "init": "official"}, "--spread: .* and 1 with --init official, got 2"),
        ({"wide_share": 1.5, "spread": 3.0}, "--wide-share: expected a share, 0 to 1, .* got 1.5 with --spread 3"),
        ({"wide_share": 0.5}, "--wide-share: .* of a --spread that is not 1, got 0.5 with --spread 1"),
        ({"relabel": "expert"}, "--checkpoint and --relabel expert belong together"),
    ],
)
def test_flags_that_cannot_be_meant(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollectArguments(output=Path("x"), **arguments).check()  # type: ignore[arg-type]


def test_how_wide_things_are_spread_is_in_the_episodes_name() -> None:
    assert attempts(spread=2.5).spec(0).episode_id == "libero_spatial/03/s10000x2.5/r0"
    assert attempts(spread=1.0).spec(0).episode_id == "libero_spatial/03/s10000/r0"


@pytest.mark.parametrize(("share", "wide"), [(0.6, 48), (0.5, 40), (0.0, 0), (1.0, 80), (1 / 3, 26), (0.29, 23)])
def test_a_share_of_the_attempts_is_spread_evenly_among_them(share: float, wide: int) -> None:
    task = attempts(spread=3.0, wide_share=share, demos_per_task=80)
    inits = [task.spec(number).init for number in range(80)]
    assert [init.seed for init in inits if isinstance(init, Sampled)] == list(range(10_000, 10_080))
    spreads = [init.spread for init in inits if isinstance(init, Sampled)]
    assert set(spreads) <= {1.0, 3.0}
    assert spreads.count(3.0) == wide
    for half in (spreads[:40], spreads[40:]):
        assert abs(half.count(3.0) - wide / 2) <= 1


def test_a_checkpoint_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at /nowhere"):
        CollectArguments(output=Path("x"), checkpoint=Path("/nowhere"), relabel="expert").check()
