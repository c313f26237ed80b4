from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tasks.interface import Recorded, Sampled
from tasks.plan import Plan, plan_official
from tasks.protocols import lerobot, openvla
from tasks.suites import UnknownTaskError
from tests.examples import episode, task


def test_ids_are_fixed_and_unique() -> None:
    plan = plan_official([task(0), task(3)], openvla(), episodes=2)
    assert [e.episode_id for e in plan.episodes] == [
        f"libero_spatial/{t}/{i}/r0" for t in ("00", "03") for i in ("00", "01")
    ]
    assert episode(0, 7, repeat=2).episode_id == "libero_spatial/00/07/r2"
    assert episode(init=Sampled(seed=5)).episode_id == "libero_spatial/00/s5/r0"
    assert str(Sampled(seed=5)) == "Sampled(seed=5)", "plans are named by it, and runs from before --spread go on"
    assert str(Sampled(seed=5, spread=2.0)) == "Sampled(seed=5, spread=2.0)"
    assert episode(init=Recorded(file=Path("/a/b.hdf5"), demo="demo_3")).episode_id == "libero_spatial/00/b.demo_3/r0"


def test_the_protocol_says_how_many() -> None:
    assert len(plan_official([task()], openvla()).episodes) == 50


def test_the_hash_sees_protocol_and_episodes() -> None:
    plans = [
        plan_official([task()], openvla(), episodes=2),
        plan_official([task()], openvla(), episodes=3),
        plan_official([task()], lerobot(), episodes=2),
        plan_official([task(1)], openvla(), episodes=2),
    ]
    assert len({plan.sha256 for plan in plans}) == 4
    assert plans[0].sha256 == plan_official([task()], openvla(), episodes=2).sha256


def test_the_hash_does_not_depend_on_where_libero_lies() -> None:
    moved = dataclasses.replace(task(), bddl_file=Path("/elsewhere/a.bddl"))
    assert plan_official([task()], openvla()).sha256 == plan_official([moved], openvla()).sha256


def test_only_keeps_the_plans_order() -> None:
    plan = plan_official([task()], openvla(), episodes=4)
    ids = ["libero_spatial/00/03/r0", "libero_spatial/00/01/r0"]
    assert [e.episode_id for e in plan.only(ids).episodes] == sorted(ids)


def test_an_unknown_episode_names_the_nearest() -> None:
    plan = plan_official([task()], openvla(), episodes=4)
    with pytest.raises(
        UnknownTaskError, match=r"episode 'libero_spatial/0/01/r0' is not in the plan of 4 episodes; the nearest is"
    ):
        plan.only(["libero_spatial/0/01/r0"])


def test_too_many_episodes_name_the_limit() -> None:
    with pytest.raises(
        ValueError, match=r"libero_spatial/00 has 50 official init states, 60 episodes.*--episodes 50 runs them all"
    ):
        plan_official([task()], openvla(), episodes=60)
    with pytest.raises(ValueError, match="expected at least one episode"):
        plan_official([task()], openvla(), episodes=0)
    with pytest.raises(ValueError, match="--repeats: expected at least 1, got 0"):
        plan_official([task()], openvla(), repeats=0)


def test_repeats_are_episodes_of_their_own() -> None:
    plan = plan_official([task()], openvla(), episodes=2, repeats=2)
    names = ["00/r0", "00/r1", "01/r0", "01/r1"]
    assert [spec.episode_id for spec in plan.episodes] == [f"libero_spatial/00/{name}" for name in names]
    assert plan.sha256 != plan_official([task()], openvla(), episodes=4).sha256


def horizons(plan: Plan) -> int:
    return sum(plan.protocol.horizon(e.task) for e in plan.episodes)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shards_are_the_plan_cut_in_pieces_of_equal_work(count: int) -> None:
    tasks = [*(task(i) for i in range(3)), *(task(i, suite="libero_10") for i in range(2))]
    plan = plan_official(tasks, openvla(), episodes=8)
    shards = [plan.shard(f"{i}/{count}") for i in range(1, count + 1)]
    assert tuple(e for shard in shards for e in shard.episodes) == plan.episodes
    assert all(shard.episodes for shard in shards)
    if count < 40:
        assert max(map(horizons, shards)) - min(map(horizons, shards)) <= 2 * 520


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"--shard: expected i/n with 1 <= i <= n, such as 1/2 and 2/2, got"):
        plan_official([task()], openvla(), episodes=4).shard(text)


def test_more_shards_than_episodes() -> None:
    with pytest.raises(ValueError, match="the plan has 4 episodes, too few for 5 shards"):
        plan_official([task()], openvla(), episodes=4).shard("1/5")
