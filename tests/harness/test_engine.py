"""The engine against workers that die, stall and raise, and policies that fail. Real processes, real simulator."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.policies.simple import BlindPolicy, ZeroPolicy
from harness.rollout.engine import Engine, EngineLimits, FollowUp, Incident, RunEnd, nothing_more
from harness.sim.settings import RolloutSettings
from tasks.interface import ActionChunk, EpisodeRecord, EpisodeSpec, Observation, OpenLoopSpec, Outcome, Policy
from tasks.plan import plan_official
from tasks.protocols import openvla
from tasks.suites import select_tasks

SPECS = plan_official(select_tasks("libero_spatial", ["0"]), openvla(), episodes=2).episodes


def settings(run_dir: Path, worker_policy: str = "") -> RolloutSettings:
    return RolloutSettings(
        protocol="openvla",
        cameras=(),
        image_convention="raw",
        ensemble=OpenLoopSpec(),
        worker_policy=worker_policy,
        run_dir=run_dir,
    )


def run(
    policy: Policy | None,
    run_dir: Path,
    *,
    specs: Sequence[EpisodeSpec] = SPECS,
    timeout_s: float = 120.0,
    max_errors: int = 10,
    meanwhile: Callable[[Engine], None] | None = None,
    worker_policy: str = "",
    workers: int = 1,
    incidents: list[Incident] | None = None,
    follow_up: FollowUp = nothing_more,
) -> tuple[RunEnd, list[EpisodeRecord]]:
    records: list[EpisodeRecord] = []
    incidents = [] if incidents is None else incidents
    engine = Engine(
        policy=policy,
        settings=settings(run_dir, worker_policy),
        image_size_px=256,
        backend="osmesa",
        egl_devices=(),
        workers=workers,
        limits=EngineLimits(worker_timeout_s=timeout_s, max_errors=max_errors),
        on_record=records.append,
        on_incident=incidents.append,
    )
    if meanwhile is not None:
        threading.Thread(target=meanwhile, args=(engine,), daemon=True).start()
    end = engine.run(specs, follow_up)
    assert engine.worker_pids == []
    return end, records


class Harming(ZeroPolicy):
    """At the n-th call of `act`, does something to the worker."""

    def __init__(self, harm: Callable[[], None], calls: Sequence[int]) -> None:
        self._harm, self._calls, self._count = harm, calls, 0
        self.started: list[str] = []

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        self.started += [spec.episode_id for spec in specs]

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        self._count += 1
        if self._count in self._calls:
            self._harm()
        return super().act(observations)


def child_pids() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


def harm_workers(sent: signal.Signals) -> None:
    for pid in child_pids():
        if b"harness.sim.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, sent)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[EpisodeRecord]:
    end, records = run(ZeroPolicy(), tmp_path_factory.mktemp("undisturbed"))
    assert end == RunEnd(reason="completed", detail="")
    return records


@pytest.mark.sim
class TestFaults:
    def test_a_killed_worker_is_replaced_and_its_episode_run_again(
        self, tmp_path: Path, undisturbed: list[EpisodeRecord]
    ) -> None:
        policy = Harming(lambda: harm_workers(signal.SIGKILL), calls=[5])
        incidents: list[Incident] = []
        end, records = run(policy, tmp_path, incidents=incidents)
        assert end.reason == "completed"
        assert [(i.kind, i.episode_id, i.attempt) for i in incidents] == [("worker_replaced", SPECS[0].episode_id, 1)]
        assert "was killed by SIGKILL" in incidents[0].why
        assert [r.attempt for r in records] == [2, 1]
        assert policy.started == [SPECS[0].episode_id, SPECS[0].episode_id, SPECS[1].episode_id]
        assert [r.final_state_sha256 for r in records] == [r.final_state_sha256 for r in undisturbed]

    def test_an_episode_may_entail_others(self, tmp_path: Path, undisturbed: list[EpisodeRecord]) -> None:
        first, *others = SPECS
        asked: list[str] = []

        def follow_up(record: EpisodeRecord) -> Sequence[EpisodeSpec]:
            asked.append(record.spec.episode_id)
            return others if record.spec == first else ()

        end, records = run(ZeroPolicy(), tmp_path, specs=[first], follow_up=follow_up)
        assert end.reason == "completed"
        assert asked == [record.spec.episode_id for record in records]
        assert [r.final_state_sha256 for r in records] == [r.final_state_sha256 for r in undisturbed]

    def test_a_stalled_worker_is_replaced(self, tmp_path: Path, undisturbed: list[EpisodeRecord]) -> None:
        end, records = run(Harming(lambda: harm_workers(signal.SIGSTOP), calls=[5]), tmp_path, timeout_s=25.0)
        assert end.reason == "completed"
        assert [r.attempt for r in records] == [2, 1]
        assert [r.final_state_sha256 for r in records] == [r.final_state_sha256 for r in undisturbed]

    def test_an_episode_that_kills_three_workers_is_an_error_not_a_failure(self, tmp_path: Path) -> None:
        policy = Harming(lambda: harm_workers(signal.SIGKILL), calls=[1, 2, 3])
        end, records = run(policy, tmp_path)
        assert end.reason == "completed"
        assert [(r.outcome, r.attempt) for r in records] == [(Outcome.ERROR, 3), (Outcome.TIMEOUT, 1)]
        assert "was killed by SIGKILL" in records[0].error
        assert records[0].trace == ""

    def test_too_many_errors_stop_the_run(self, tmp_path: Path) -> None:
        policy = Harming(lambda: harm_workers(signal.SIGKILL), calls=[1, 2, 3])
        end, records = run(policy, tmp_path, max_errors=0)
        assert end.reason == "too_many_errors"
        assert "more than --max-errors 0 allows" in end.detail
        assert len(records) == 1

    def test_a_worker_that_raises_is_asked_again_and_then_an_error(self, tmp_path: Path) -> None:
        file = tmp_path / "nowhere.bddl"
        broken = dataclasses.replace(SPECS[0], task=dataclasses.replace(SPECS[0].task, bddl_file=file))
        incidents: list[Incident] = []
        end, records = run(ZeroPolicy(), tmp_path, specs=[broken], incidents=incidents)
        assert end.reason == "completed"
        assert (records[0].outcome, records[0].attempt) == (Outcome.ERROR, 3)
        assert "FileNotFoundError" in records[0].error
        assert [(i.kind, i.attempt) for i in incidents] == [("episode_repeated", n) for n in (1, 2)]

    def test_a_trace_that_cannot_be_written_ends_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "traces").write_text("a file where the traces' folder should be")
        end, records = run(ZeroPolicy(), tmp_path)
        assert (end.reason, records) == ("cannot_write", [])
        assert "cannot write the trace" in end.detail
        assert "Free some space there and repeat the command" in end.detail

    def test_a_slow_policy_is_not_blamed_on_the_workers(self, tmp_path: Path) -> None:
        """While one batch is computed, another worker's query waits: that worker has answered and owes nothing."""
        policy = Harming(lambda: time.sleep(27), calls=[3])
        end, records = run(policy, tmp_path, timeout_s=25.0, workers=2)
        assert end.reason == "completed"
        assert [r.attempt for r in records] == [1, 1]

    def test_an_episode_that_cannot_be_simulated_is_not_tried_again(self, tmp_path: Path) -> None:
        file = tmp_path / "short.pruned_init.npz"
        np.savez_compressed(file, states=np.zeros((50, 3)))
        broken = dataclasses.replace(SPECS[0], task=dataclasses.replace(SPECS[0].task, init_states_file=file))
        end, records = run(ZeroPolicy(), tmp_path, specs=[broken])
        assert end.reason == "completed"
        assert (records[0].outcome, records[0].attempt) == (Outcome.ERROR, 1)
        assert "an init state has 3 numbers, the model needs 92" in records[0].error

    def test_a_policy_that_raises_ends_the_run_after_saving(self, tmp_path: Path) -> None:
        class Fragile(BlindPolicy):
            def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
                if observations[0].episode_id == SPECS[1].episode_id:
                    raise RuntimeError("out of memory, says the model")
                return [ActionChunk(actions=np.zeros((220, 7)))]

        end, records = run(Fragile(), tmp_path)
        assert end.reason == "policy_error"
        assert (
            "the policy failed on libero_spatial/00/01/r0 step 0: RuntimeError: out of memory, says the model"
            in end.detail
        )
        assert [r.spec for r in records] == [SPECS[0]]

    def test_a_worker_policy_that_raises_ends_the_run(self, tmp_path: Path) -> None:
        end, records = run(None, tmp_path, worker_policy="nobody")
        assert end.reason == "policy_error"
        assert "the worker policy raised KeyError: 'nobody'" in end.detail
        assert records == []

    def test_no_worker_has_torch(self, tmp_path: Path) -> None:
        """Workers are fresh interpreters: torch, loaded here, must not be mapped there."""
        import torch  # noqa: F401

        found: list[bool] = []

        def look(engine: Engine) -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (tmp_path / "traces").exists():
                time.sleep(0.2)
            found.extend("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in engine.worker_pids)

        run(ZeroPolicy(), tmp_path, meanwhile=look)
        assert found == [False]


@pytest.mark.sim
def test_the_simulation_stack_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import harness.sim.worker, harness.sim.episode, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
