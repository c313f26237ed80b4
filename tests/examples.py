"""Small values of the core types, for tests that need some."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from results.manifest import MANIFEST_VERSION, RunManifest
from results.trace import Trace, trace_path
from tasks.interface import (
    EpisodeRecord,
    EpisodeSpec,
    InitState,
    Observation,
    Official,
    Outcome,
    TaskSpec,
    TimeSpent,
)
from tasks.plan import make_episode
from tasks.protocols import openvla


def task(index: int = 0, suite: str = "libero_spatial", name: str = "pick_up_the_bowl") -> TaskSpec:
    return TaskSpec(
        suite=suite,
        index=index,
        name=name,
        instruction_file_name="pick up the bowl",
        instruction_bddl="pick the akita bowl",
        bddl_file=Path("a.bddl"),
        init_states_file=Path("a.npz"),
        num_init_states=50,
    )


def episode(index: int = 0, init: int | InitState = 0, suite: str = "libero_spatial", repeat: int = 0) -> EpisodeSpec:
    state = Official(index=init) if isinstance(init, int) else init
    return make_episode(task(index, suite), state, openvla(), repeat)


def record(
    spec: EpisodeSpec | None = None, outcome: Outcome = Outcome.SUCCESS, error: str = "", steps: int = 100
) -> EpisodeRecord:
    spec = spec or episode()
    return EpisodeRecord(
        spec=spec,
        outcome=outcome,
        error=error,
        steps=steps,
        queries=13,
        clipped_actions=2,
        time_spent=TimeSpent(build_s=1.0, reset_s=0.2, physics_s=2.0, render_s=0.5, policy_s=0.3, wait_s=0.1),
        attempt=1,
        final_state_sha256="ab" * 32,
        trace=trace_path(spec.episode_id),
        video="",
    )


def observation(episode_id: str = "libero_spatial/00/00/r0", step: int = 0) -> Observation:
    return Observation(
        images=np.zeros((0, 4, 4, 3), dtype=np.uint8),
        proprio=np.zeros(8, dtype=np.float32),
        instruction="pick up the bowl",
        episode_id=episode_id,
        step=step,
    )


def manifest(planned: dict[str, int] | None = None, mujoco: str = "3.2.3", shard: str = "") -> RunManifest:
    return RunManifest(
        version=MANIFEST_VERSION,
        plan_sha256="0" * 64,
        shard=shard,
        planned_episodes=planned or {"libero_spatial/00": 2},
        protocol={"name": "openvla"},
        instructions={"libero_spatial/00": "pick up the bowl"},
        cameras=(),
        image_convention="rotated_180",
        policy="zero",
        policy_code_sha256="",
        checkpoint="",
        checkpoint_sha256="",
        policy_metadata={},
        dtype="not stated",
        ensemble="open loop, whole chunk",
        seed=0,
        batch_size=1,
        versions={"mujoco": mujoco},
        renderer="nothing rendered",
        egl_devices=(),
        git_revision="",
        command_line=["vla-eval"],
        machine="a machine",
        started_utc="2026-01-01T00:00:00+00:00",
    )


def trace(episode_id: str = "libero_spatial/00/00/r0", steps: int = 3) -> Trace:
    generator = np.random.default_rng(0)
    return Trace(
        episode_id=episode_id,
        protocol="openvla",
        time_s=np.arange(steps + 1) * 0.05,
        qpos=generator.normal(size=(steps + 1, 5)),
        qvel=generator.normal(size=(steps + 1, 4)),
        site_alpha=np.ones((steps + 1, 2), dtype=np.float32),
        actions=generator.normal(size=(steps, 7)),
        fixtures=("stove_1",),
        fixture_poses=generator.normal(size=(1, 7)),
        query_steps=np.array([0], dtype=np.int32),
        query_qpos=generator.normal(size=(1, 5)),
        query_site_alpha=np.ones((1, 2), dtype=np.float32),
        query_proprio=generator.normal(size=(1, 8)).astype(np.float32),
        labels=np.empty((0, 7)),
    )
