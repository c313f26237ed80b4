"""Order does not matter: the same episodes with one worker, with two, and shuffled end in the same states, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.rollout.engine import Engine, EngineLimits
from harness.sim.settings import RolloutSettings
from tasks.interface import EpisodeRecord, EpisodeSpec, OpenLoopSpec, Policy
from tasks.plan import plan_official
from tasks.protocols import openvla
from tasks.suites import select_tasks
from tests.harness.test_engine import settings
from tests.harness.torch_policy import TorchPolicy


def episodes(tasks: tuple[str, ...], per_task: int) -> list[EpisodeSpec]:
    return list(plan_official(select_tasks("libero_spatial", tasks), openvla(), episodes=per_task).episodes)


def roll_out(
    specs: Sequence[EpisodeSpec], policy: Policy | None, workers: int, run_dir: Path
) -> dict[str, EpisodeRecord]:
    records: dict[str, EpisodeRecord] = {}
    settings = RolloutSettings(
        protocol="openvla",
        cameras=policy.needs.cameras if policy else (),
        image_convention="rotated_180",
        ensemble=policy.needs.ensemble if policy else OpenLoopSpec(),
        worker_policy="" if policy else "expert",
        run_dir=run_dir,
    )
    engine = Engine(
        policy=policy,
        settings=settings,
        image_size_px=256,
        backend="osmesa",
        egl_devices=(),
        workers=workers,
        limits=EngineLimits(worker_timeout_s=300, max_errors=0),
        on_record=lambda record: records.update({record.spec.episode_id: record}),
        on_incident=lambda incident: pytest.fail(str(incident)),
    )
    end = engine.run(specs)
    assert end.reason == "completed", end.detail
    return records


@pytest.mark.sim
@pytest.mark.parametrize(("kind", "tasks", "per_task"), [("expert", ("0", "4", "5", "9"), 3), ("torch", ("0", "5"), 2)])
def test_workers_and_order_change_nothing(kind: str, tasks: tuple[str, ...], per_task: int, tmp_path: Path) -> None:
    make = (lambda: None) if kind == "expert" else (lambda: TorchPolicy(chunk_steps=55))  # four queries an episode
    planned = episodes(tasks, per_task)
    shuffled = random.Random(1).sample(planned, len(planned))
    runs = [
        roll_out(planned, make(), 1, tmp_path / "one"),
        roll_out(planned, make(), 2, tmp_path / "two"),
        roll_out(shuffled, make(), 2, tmp_path / "shuffled"),
    ]
    for run in runs[1:]:
        assert run.keys() == runs[0].keys()
        for episode_id, record in run.items():
            first = runs[0][episode_id]
            assert (record.outcome, record.steps, record.queries, record.final_state_sha256) == (
                first.outcome,
                first.steps,
                first.queries,
                first.final_state_sha256,
            ), episode_id
    assert len({record.final_state_sha256 for record in runs[0].values()}) == len(planned)


@pytest.mark.sim
def test_one_process_may_interleave_tasks_and_episodes(tmp_path: Path) -> None:
    """As above without the dealer's order: one runner, tasks changing at every episode."""
    from harness.sim.episode import EpisodeRunner

    planned = episodes(("0", "4"), per_task=2)
    hashes: list[dict[str, str]] = []
    for order in (planned, [planned[i] for i in (3, 0, 2, 1)]):
        runner = EpisodeRunner(settings(tmp_path, worker_policy="expert"))
        hashes.append({spec.episode_id: runner.run(spec, 1, _no_query).final_state_sha256 for spec in order})
        runner.close()
    assert hashes[0] == hashes[1]


def _no_query(_: object) -> None:
    raise AssertionError("a worker policy makes no queries")
