"""scripts/following.py: a hand that goes where things are is told from one that goes where they are on average."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from results.trace import Trace
from tasks.suites import load_suite

SCRIPT = Path(__file__).parents[1] / "scripts" / "following.py"
THING, TARGET = 9, 16


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))


def trace(
    *, closes: slice = slice(40, 70), lifts: float = 0.1, thing: tuple[float, float] = (0.1, 0.2), query_every: int = 8
) -> Trace:
    """The hand is at x = step / 1000; the thing rises from step 50 on and moves with the hand; 100 steps."""
    steps = np.arange(101)
    qpos: NDArray[np.float64] = np.zeros((101, 30))
    qpos[:, THING : THING + 2] = thing
    qpos[50:, THING] += (steps[50:] - 50) / 1000
    qpos[50:, THING + 2] = lifts
    qpos[:, TARGET : TARGET + 2] = (-0.1, 0.3)
    actions = np.zeros((100, 7))
    actions[:, 6] = -1
    actions[closes, 6] = 1
    queries = np.arange(0, 100, query_every, dtype=np.int32)
    proprio = np.zeros((len(queries), 8), dtype=np.float32)
    proprio[:, 0] = queries / 1000
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
        query_proprio=proprio,
        labels=np.zeros((0, 7)),
    )


def test_places_are_read_off_a_trace() -> None:
    from following import places_of

    places = places_of(trace(closes=slice(41, 70)), THING, TARGET)
    assert places is not None
    assert places.thing.tolist() == [0.1, 0.2]
    assert places.target.tolist() == [-0.1, 0.3]
    assert places.closed == pytest.approx([0.048, 0.0])  # asked at steps 0, 8, …, 40, 48
    assert places.released == pytest.approx([0.12, 0.2])  # at step 70
    held = places_of(trace(closes=slice(41, 100)), THING, TARGET)
    assert held is not None
    assert held.released == pytest.approx([0.15, 0.2])  # never let go: at the end


def test_an_episode_that_shows_nothing_is_left_out() -> None:
    from following import places_of

    assert places_of(trace(closes=slice(0, 0)), THING, TARGET) is None
    assert places_of(trace(lifts=0.02), THING, TARGET) is None
    assert places_of(trace(closes=slice(97, 100)), THING, TARGET) is None  # no query after that


def test_slopes_of_one_who_follows_and_one_who_does_not() -> None:
    from following import Places, slopes

    rng = np.random.default_rng(0)
    groups = []
    for middle in (0.0, 5.0):  # tasks far from each other: their means must not count
        things, targets, noise = rng.normal(0, 0.01, (3, 40, 2))
        groups.append(
            [
                Places(thing=a + middle, closed=a + 0.3, target=b - middle, released=c)
                for a, b, c in zip(things, targets, noise, strict=True)
            ]
        )
    x, y, put_x, put_y = slopes(groups)
    assert (x, y) == ("1.00 ± 0.00", "1.00 ± 0.00")
    for put in (put_x, put_y):
        value, width = map(float, put.split(" ± "))
        assert abs(value) < 2 * width
        assert 0.15 < width < 0.3  # about 1.96 / sqrt(80)


def test_what_does_not_vary_has_no_slope() -> None:
    from following import slope

    assert slope(np.full(50, 1e-6), np.zeros(50)) is None
    assert slope(np.array([-1.0, 1.0]), np.array([-1.0, 1.0])) is None  # two points lie on every line
    found = slope(np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 0.0, 1.0]))
    assert found is not None
    assert found.value == pytest.approx(1.0)
    assert found.half_width == pytest.approx(0.0, abs=1e-9)


@pytest.mark.sim
def test_only_tasks_about_two_things_that_can_move() -> None:
    from following import columns_of, things_of

    spatial, goal = load_suite("libero_spatial"), load_suite("libero_goal")
    assert things_of(spatial[0]) == ("akita_black_bowl_1", "plate_1")
    thing, target = columns_of(spatial[0]) or (0, 0)
    assert (thing % 7, target % 7) == (2, 2)  # nine of the robot's, then seven per thing
    assert thing != target
    turn_on = next(task for task in goal if task.name == "turn_on_the_stove")
    on_the_stove = next(task for task in goal if task.name == "put_the_bowl_on_the_stove")
    assert columns_of(turn_on) is None
    assert columns_of(on_the_stove) is None  # the stove stands still


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode != 0
    assert str(tmp_path) in ended.stderr
    assert "Traceback" not in ended.stderr
