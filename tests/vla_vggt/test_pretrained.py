"""The checkpoints that ship."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.arguments import EvalArguments
from harness.cli import with_shipped_checkpoint
from results.run_directory import RunDirectory
from tasks.interface import Outcome
from tasks.protocols import find_protocol
from tasks.suites import SUITES, load_suite
from tests.vla_vggt.examples import observation, untrained
from vla_vggt import policy as policy_module
from vla_vggt.pretrained import FOLDER, INSTRUCTIONS, find_shipped, shipped_checkpoints
from vla_vggt.training.checkpoint import CheckpointError, load_policy, read_description, save_pth

SCRIPTS = Path(__file__).parents[2] / "scripts"
MAX_BYTES = 30_000_000


@pytest.mark.parametrize("folder", sorted(shipped_checkpoints()), ids=lambda folder: folder.name)
def test_a_shipped_checkpoint_is_small_and_acts_without_a_language_model(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_BYTES
    checkpoint = load_policy(folder)
    assert {weight.dtype for weight in checkpoint.weights.values()} == {torch.bfloat16}
    suites = {task.suite for task in checkpoint.description.tasks}
    variants = [name for name, suite in SUITES.items() if suite.base in suites]
    for name in variants:
        protocol = find_protocol("openvla")
        assert {protocol.instruction(task) for task in load_suite(name)} <= checkpoint.instructions.keys()
        assert {task.instruction_bddl for task in load_suite(name)} <= checkpoint.instructions.keys()
    assert "Qwen2" in checkpoint.description.language.model
    assert checkpoint.description.execute_steps >= 4  # few enough queries for a CPU
    acting = policy_module.load(folder, device="cpu", language_model="/no/such/model")
    task = checkpoint.description.tasks[0]
    (chunk,) = acting.act([observation(0, size=256, instruction=task.instruction)])
    assert np.isfinite(chunk.actions).all()
    assert chunk.actions.shape == (checkpoint.description.model.chunk_steps, 7)


def test_what_ships_is_found_by_suite() -> None:
    spatial = find_shipped(["libero_spatial"])
    assert spatial.parent == FOLDER
    assert find_shipped(["libero_spatial_lan", "libero_spatial_swap"]) == spatial
    with pytest.raises(CheckpointError, match=r"no checkpoint that ships was trained on libero_90 .*--policy expert"):
        find_shipped(["libero_90"])
    assert find_shipped(["libero_object"]).name == "libero_object"
    with pytest.raises(
        CheckpointError, match=r"libero_object and libero_spatial .* Evaluate one suite at a time, or say"
    ):
        find_shipped(["libero_spatial", "libero_object"])
    with pytest.raises(ValueError, match="Did you mean 'libero_spatial'"):
        find_shipped(["libero_spatia"])


def test_vla_eval_takes_it_where_nothing_else_is_named() -> None:
    spatial = find_shipped(["libero_spatial"])
    assert with_shipped_checkpoint(EvalArguments(suite=("libero_spatial",))).checkpoint == spatial
    assert with_shipped_checkpoint(EvalArguments(only=("libero_spatial/03/07/r0",))).checkpoint == spatial
    for other in (
        EvalArguments(suite=("libero_spatial",), policy="expert"),
        EvalArguments(suite=("libero_spatial",), checkpoint=Path("mine")),
        EvalArguments(),
    ):
        assert with_shipped_checkpoint(other) is other


def test_a_checkpoint_is_exported(tmp_path: Path) -> None:
    shipped = read_description(find_shipped(["libero_spatial"]))
    policy = untrained(language=shipped.language, training={"log_dir": "/home/me/a", "data_path": ["/data/b"], "lr": 1})
    save_pth(tmp_path / "a.pth", policy)
    command = [sys.executable, str(SCRIPTS / "export_checkpoint.py"), "--checkpoint", "a.pth", "--output", "small"]
    done = subprocess.run([*command, "--execute-steps", "6"], cwd=tmp_path, capture_output=True, text=True, check=True)
    exported = load_policy(tmp_path / "small")
    assert exported.description.execute_steps == 6
    assert exported.description.training == {"log_dir": "a", "data_path": ["b"], "init_from": None, "lr": 1}
    assert exported.description.tasks == policy.description.tasks
    for name, weight in policy.weights.items():
        torch.testing.assert_close(exported.weights[name], weight.to(torch.bfloat16))
    assert "lift the cube" in exported.instructions  # trained on
    assert {task.instruction_bddl for task in load_suite("libero_object_lan")} <= exported.instructions.keys()
    assert "drop the cube" not in exported.instructions
    assert f"{len(exported.instructions)} instructions" in done.stdout
    save_pth(tmp_path / "a.pth", untrained())
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "expected the language model the policy was trained with" in refused.stderr
    assert INSTRUCTIONS.is_file()


@pytest.mark.sim
def test_vla_eval_alone_evaluates_what_ships(tmp_path: Path) -> None:
    flags = ["--suite", "libero_spatial", "--tasks", "0", "--episodes", "1", "--workers", "1", "--videos", "none"]
    command = [sys.executable, "-m", "harness", *flags, "--output-dir", "run"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent), "COLUMNS": "150"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = RunDirectory(tmp_path / "run")
    manifest = run.manifest()
    assert manifest.policy == "vla-vggt"
    assert manifest.checkpoint_sha256 == load_policy(find_shipped(["libero_spatial"])).sha256
    assert manifest.ensemble == "open loop, 4 steps"
    (record,) = run.records()
    assert record.outcome in (
        Outcome.SUCCESS,
        Outcome.TIMEOUT,
    )  # pixels and sums differ a little from machine to machine
    assert record.queries == -(-record.steps // 4)
