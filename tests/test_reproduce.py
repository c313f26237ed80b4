"""The pipeline from nothing to a success rate, in miniature. It must run, not succeed."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from results.run_directory import RunDirectory
from scripts.ablations import TRAINED
from tasks.interface import Sampled
from vla_vggt.configs.train_config import TrainArguments
from vla_vggt.training.checkpoint import read_description

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce_spatial.sh"
MINIATURE = {
    "TASKS": "0 2",
    "WORKERS": "2",
    "DEMOS": "2",
    "WIDE_SHARE": "0.5",
    "CORRECTED": "1",
    "IMAGE_EVERY": "8",
    "SIZE": "64",
    "PRESET": "tiny",
    "STEM": "patches",
    "BATCH": "8",
    "EXECUTE": "7",  # neither the script's default nor vla-train's
    "STEPS": "4",
    "FINISH_STEPS": "3",
    "SAVE_EVERY": "3",
    "IMAGE_PX": "32",
    "MORE": "--data-on-device --no-proprioception",
    "KEEP": "all",  # what four steps have taught succeeds in nothing
    "EPISODES": "1",
    "VIDEOS": "none",
}
STAGES = ("collect", "draw", "train", "correct", "finish", "evaluate", "report")


def reproduce(output: Path, *flags: str) -> str:
    environment = os.environ | MINIATURE | {"OUTPUT": str(output), "PYTHON": sys.executable, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", str(SCRIPT), *flags], env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.sim
def test_it_runs_from_nothing_and_again(tmp_path: Path) -> None:
    said = reproduce(tmp_path / "out")
    assert re.findall(r"^== (\w+): \d+ s$", said, re.MULTILINE) == list(STAGES)
    final = read_description(tmp_path / "out" / "final" / "checkpoints" / "last")
    assert final.step == 3
    assert {task.suite for task in final.tasks} == {"libero_spatial"}
    assert len(final.tasks) == 2
    first = read_description(tmp_path / "out" / "first" / "checkpoints" / "last")
    assert final.action_statistics == first.action_statistics
    assert final.data_sha256 != first.data_sha256  # the corrections are in it
    assert len(first.training["data_path"]) == 1
    assert first.training["augment_shift"] == 0.01
    assert (first.execute_steps, final.execute_steps) == (7, 7)
    for name, spreads in (("demonstrations", {1.0, 3.0}), ("corrections", {1.0})):
        attempts = RunDirectory(tmp_path / "out" / name).records()
        inits = [attempt.spec.init for attempt in attempts if isinstance(attempt.spec.init, Sampled)]
        assert len(inits) == len(attempts)
        assert {init.spread for init in inits} == spreads, name
    records = RunDirectory(tmp_path / "out" / "evaluation").records()
    assert sorted(record.spec.episode_id for record in records) == [
        "libero_spatial/00/00/r0",
        "libero_spatial/02/00/r0",
    ]
    assert (tmp_path / "out" / "evaluation" / "report.md").is_file()
    compare_parts(tmp_path / "out")
    again = reproduce(tmp_path / "out", "--stage", "finish")  # everything is there: nothing is done
    assert re.findall(r"^== (\w+): \d+ s$", again, re.MULTILINE) == ["finish"]
    assert read_description(tmp_path / "out" / "final" / "checkpoints" / "last") == final


def compare_parts(output: Path) -> None:
    """The ablations, on the demonstrations that are there."""
    command = [sys.executable, str(SCRIPT.parent / "ablations.py"), "--output", str(output / "ablations")]
    command += ["--data", str(output / "demonstrations" / "libero_spatial_cache")]
    command += ["--seeds", "1", "--steps", "2", "--tasks", "0", "--episodes", "1", "--workers", "1"]
    command += ["--arms", "full", "no wrist camera", "temporal ensembling"]
    flags = ["--", "--preset", "tiny", "--batch-size", "8"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"full +│ +\d+ +│ +\d+\.\d", done.stdout), done.stdout
    for arm in ("no wrist camera", "temporal ensembling"):
        assert re.search(rf"{arm} +│ +\d+ +│ +\d+\.\d +│ +[+-]\d+\.\d", done.stdout), done.stdout
    no_wrist = read_description(output / "ablations" / "no-wrist-camera-0" / "checkpoints" / "last")
    assert no_wrist.model.cameras == ("agentview",)
    assert len(RunDirectory(output / "ablations" / "full-0" / "evaluation-full").records()) == 1
    again = [*command, "--arms", "no wrist camera", *flags]  # everything is there
    assert (
        "no wrist camera" in subprocess.run(again, env=environment, capture_output=True, text=True, check=True).stdout
    )
    for wrong, why in (
        (
            [*command, "--arms", "no luck"],
            "--arms: expected some of full, no graph, no wrist camera, no proprioception, shifted less, temporal ensembling, got",
        ),
        ([*command, *flags, "--lr", "0.5"], "--lr was 0.0001, is 0.5"),
    ):
        refused = subprocess.run(wrong, env=environment, capture_output=True, text=True, check=False)
        assert why in refused.stderr


def test_what_each_ablation_trains() -> None:
    """The flags of every arm, read as vla-train reads them; the test above runs one arm of each kind."""
    full, others = {}, {}
    for arm, flags in TRAINED.items():
        arguments = tyro.cli(TrainArguments, args=["--data-path", "data", "--log-dir", "run", *flags])
        others[arm] = dataclasses.asdict(arguments)
        full = full or others[arm]
    changed = {arm: {name: value for name, value in had.items() if value != full[name]} for arm, had in others.items()}
    assert changed == {
        "full": {},
        "no graph": {"neighbours": 0},
        "no wrist camera": {"cameras": ("agentview",)},
        "no proprioception": {"proprioception": False},
        "shifted less": {"augment_shift": 0.01},
    }
