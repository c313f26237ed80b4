"""scripts/following.py: a hand that goes where things are is told from one that goes where they are on average."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.cli import EXIT_OK
from results.run_directory import RunDirectory
from results.trace import Trace
from tasks.suites import load_suite
from tests.harness.test_cli import call

SCRIPT = Path(__file__).parents[1] / "scripts" / "following.py"
THING, TARGET = 9, 16


class Hand:
    """What `Scene` tells of a trace of these tests: the hand is where the first joint says."""

    thing, target = THING, TARGET

    def hand(self, qpos: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([qpos[0], 0.5])


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))


def trace(*closes: slice, lifts: float = 0.1) -> Trace:
    """100 steps; the first joint is step / 1000; the thing rises at step 50 and moves by 1 mm a step from there."""
    steps = np.arange(101)
    qpos: NDArray[np.float64] = np.zeros((101, 30))
    qpos[:, 0] = steps / 1000
    qpos[:, THING : THING + 2] = 0.1, 0.2
    qpos[50:, THING] += (steps[50:] - 50) / 1000
    qpos[50:, THING + 2] = lifts
    qpos[:, TARGET : TARGET + 2] = -0.1, 0.3
    actions = np.zeros((100, 7))
    actions[:, 6] = -1
    for closed in closes:
        actions[closed, 6] = 1
    queries = np.arange(0, 100, 8, dtype=np.int32)
    return Trace(
        episode_id="a",
        protocol="openvla",
        time_s=steps / 20,
        qpos=qpos,
        qvel=np.zeros((101, 30)),
        site_alpha=np.zeros((101, 1), dtype=np.float32),
        actions=actions,
        fixtures=(),
        fixture_poses=np.zeros((0, 7)),
        query_steps=queries,
        query_qpos=qpos[queries],
        query_site_alpha=np.zeros((len(queries), 1), dtype=np.float32),
        query_proprio=np.zeros((len(queries), 8), dtype=np.float32),
        labels=np.zeros((0, 7)),
    )


def places(*closes: slice, lifts: float = 0.1) -> Any:
    from following import places_of

    return places_of(trace(*closes, lifts=lifts), Hand(), "official 0")  # type: ignore[arg-type]


def test_places_are_read_off_a_trace() -> None:
    found = places(slice(41, 70))
    assert found.thing.tolist() == [0.1, 0.2]
    assert found.target.tolist() == [-0.1, 0.3]
    assert found.closed == pytest.approx([0.041, 0.5])
    assert found.released == pytest.approx([0.12, 0.2])  # at step 70
    assert places(slice(41, 100)).released == pytest.approx([0.15, 0.2])  # never let go: at the end


def test_the_grasp_that_lifts_counts_and_the_last_letting_go() -> None:
    found = places(slice(0, 1), slice(10, 20), slice(45, 60), slice(80, 90))  # two misses, the grasp, and once more
    assert found.closed == pytest.approx([0.045, 0.5])
    assert found.released == pytest.approx([0.14, 0.2])


def test_an_episode_that_shows_nothing_is_left_out() -> None:
    assert places() is None
    assert places(slice(41, 70), lifts=0.02) is None
    assert places(slice(60, 70)) is None  # it rose before any fingers closed


def group(rng: np.random.Generator, *, follows: float, scatter: float = 0.01, n: int = 50) -> Any:
    x = rng.normal(rng.uniform(-5, 5), 0.01, n)  # tasks far from each other: their means must not count
    return x, follows * (x - x.mean()) + rng.normal(3, scatter, n), [str(i) for i in range(n)]


def test_slopes_of_one_who_follows_and_one_who_does_not() -> None:
    from following import slope

    rng = np.random.default_rng(0)
    for truth in (0.0, 0.5, 1.0):
        found = slope([group(rng, follows=truth) for _ in range(10)])
        assert found is not None
        assert abs(found.value - truth) < 0.15  # over three standard errors
        assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(500), rel=0.15)


def test_the_interval_holds_what_it_says() -> None:
    from following import slope

    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        found = slope(
            [group(rng, follows=0.7, scatter=0.002), group(rng, follows=0.7, scatter=0.03)]
        )  # of unlike noise
        assert found is not None
        hits += found.low < 0.7 < found.high
    assert 51 <= hits <= 60


def test_episodes_that_repeat_an_init_state_tell_nothing_more() -> None:
    from following import slope

    x, y, inits = group(np.random.default_rng(2), follows=0.5)
    once, twice = slope([(x, y, inits)]), slope([(np.tile(x, 2), np.tile(y, 2), inits * 2)])
    assert once is not None
    assert twice is not None
    assert twice.value == pytest.approx(once.value)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_what_does_not_vary_has_no_slope_and_does_not_count() -> None:
    from following import slope

    rng = np.random.default_rng(3)
    still = np.full(50, 1.0) + rng.normal(0, 1e-6, 50), rng.normal(0, 1, 50), [str(i) for i in range(50)]
    follows = group(rng, follows=1.0)
    assert slope([still]) is None
    assert slope([still, follows]) == slope([follows])
    assert slope([(follows[0][:9], follows[1][:9], follows[2][:9])]) is None  # too few
    few = slope([(follows[0][:10], follows[1][:10], follows[2][:10])])
    assert few is not None
    assert np.isfinite([few.low, few.high]).all()


def test_only_tasks_about_two_things_that_can_move() -> None:
    from following import things_of

    spatial, objects, goal, many = map(load_suite, ("libero_spatial", "libero_object", "libero_goal", "libero_90"))
    assert {things_of(task) for task in spatial} == {("akita_black_bowl_1", "plate_1")}
    assert all((things_of(task) or "")[1] == "basket_1" for task in objects)
    assert [task.name for task in goal if things_of(task) is not None] == [
        "put_the_cream_cheese_in_the_bowl",
        "put_the_bowl_on_the_plate",
    ]
    beside = next(
        task
        for task in many
        if task.name.endswith("put_the_white_mug_to_the_right_of_the_plate") or "right_of" in task.name
    )
    assert things_of(beside) is None  # a place on the table, which does not move with the plate


@pytest.mark.sim
def test_a_run_is_read(tmp_path: Path) -> None:
    """The expert on two official states: where it closes, the bowl is near; where it lets go, the plate is."""
    from following import read, tabulated

    status, _, errors = call(tmp_path, suite=("libero_spatial",), tasks=("0",), episodes=2)
    assert status == EXIT_OK, errors
    seen, counts = read(RunDirectory(tmp_path / "run"))
    assert counts == {"libero_spatial 0": 2}
    (found,) = seen.values()
    assert len({each.init for each in found}) == 2
    for each in found:
        assert 0.01 < np.linalg.norm(each.closed - each.thing) < 0.08  # a rim
        assert np.linalg.norm(each.released - each.target) < 0.03
    assert [list(column.cells) for column in tabulated(seen, counts).columns][1] == ["2/2", "2/2"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode != 0
    assert str(tmp_path) in ended.stderr
    assert "Traceback" not in ended.stderr
