"""The manifest says what ran, by whom, on what."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness.drawing import NOTHING_DRAWN
from harness.policies.factory import policy_code_sha256
from harness.policies.simple import ZeroPolicy
from harness.run_manifest import describe_run
from results.manifest import RunManifest, path_sha256
from tasks.interface import OpenLoopSpec, Policy
from tasks.plan import plan_official
from tasks.protocols import find_protocol
from tasks.suites import select_tasks
from tests.harness.test_engine import settings

PLAN = plan_official(select_tasks("libero_spatial", ("0", "4")), find_protocol("openvla"), episodes=2)


def described(tmp_path: Path, policy: Policy | None, name: str) -> RunManifest:
    checkpoint = tmp_path / "weights"
    checkpoint.write_bytes(b"weights")
    return describe_run(
        whole=PLAN,
        shard="1/2",
        planned_episodes={"libero_spatial/04": 2},
        policy=policy,
        policy_name=name,
        policy_metadata={"a": 1},
        checkpoint=checkpoint,
        seed=3,
        settings=dataclasses.replace(settings(tmp_path), ensemble=OpenLoopSpec(execute_steps=8)),
        drawn=dataclasses.replace(NOTHING_DRAWN, renderer="egl: A100", egl_devices=(1,)),
    )


def test_a_policy(tmp_path: Path) -> None:
    policy = ZeroPolicy()
    manifest = described(tmp_path, policy, "tests.harness.torch_policy:make_torch_policy")
    assert manifest.plan_sha256 == PLAN.sha256
    assert list(manifest.instructions) == ["libero_spatial/00", "libero_spatial/04"], "of all shards"
    assert manifest.planned_episodes == {"libero_spatial/04": 2}
    assert manifest.policy_code_sha256 == path_sha256(Path(__file__).parent / "torch_policy.py")
    assert manifest.checkpoint_sha256 == path_sha256(tmp_path / "weights")
    assert manifest.batch_size == policy.needs.batch_size
    assert manifest.ensemble == str(OpenLoopSpec(execute_steps=8))
    assert (manifest.renderer, manifest.egl_devices, manifest.seed) == ("egl: A100", (1,), 3)
    assert manifest.policy_metadata == {"a": 1}


def test_the_expert(tmp_path: Path) -> None:
    manifest = described(tmp_path, None, "expert")
    assert (manifest.ensemble, manifest.batch_size, manifest.policy_code_sha256) == ("one action per step", 1, "")


def test_a_colon_alone_makes_no_factory() -> None:
    assert policy_code_sha256("replay:demos/a_demo.hdf5") == policy_code_sha256("ws://localhost:8000") == ""
