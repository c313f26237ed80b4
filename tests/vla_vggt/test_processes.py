"""Several processes train as one does: `torchrun` with gloo on the CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.lift import LIFT
from tests.tiny_language_model import save_tiny_language_model
from vla_vggt.models.language_encoder import LanguageModel
from vla_vggt.training.checkpoint import load_policy, load_training_state, read_description

SAMPLES_PER_STEP = 16


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(log_dir: Path, language_model: Path, processes: int, *more: str) -> list[str]:
    """The command as a user types it."""
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    values = {
        "--data-path": LIFT,
        "--task-names": "lift the cube",
        "--log-dir": log_dir,
        "--preset": "tiny",
        "--language-model": language_model,
        "--max-steps": 6,
        "--save-every": 3,
        "--log-every": 2,
        "--lr": "1e-3",
        "--device": "cpu",
        "--batch-size": SAMPLES_PER_STEP // processes,
    }
    flags = [str(part) for flag in values.items() for part in flag]
    return [sys.executable, "-m", *(torchrun if processes > 1 else []), "vla_vggt.cli", *flags, *more]


def train(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), check=False, capture_output=True, text=True)  # type: ignore[arg-type]


def losses(log_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (log_dir / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, language_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    done = train(folder, language_model, 1)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_that_accumulate_equal_one_with_four_times_the_batch(
    tmp_path: Path, language_model: Path, one: Path
) -> None:
    """Augmentation on: what a sample looks like does not depend on who computes it."""
    done = train(tmp_path / "two", language_model, 2, "--batch-size", "4", "--accumulate", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Encoding 1 instructions") == 1
    assert done.stderr.count("does not say what task it shows") == 1
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-5)
    ours, theirs = (read_description(folder) for folder in (tmp_path / "two", one))
    assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-5)
    a, b = (load_policy(folder / "checkpoints" / "last").weights for folder in (tmp_path / "two", one))
    for name, weights in a.items():
        torch.testing.assert_close(weights, b[name], rtol=1e-3, atol=1e-4)


def test_a_tuned_language_model_is_divided_among_processes(tmp_path: Path, language_model: Path) -> None:
    """Each holds about half of it, and together they do what one does."""
    flags = ("--finetune-language", "full", "--max-steps", "4", "--save-every", "2")
    alone = train(tmp_path / "one", language_model, 1, *flags)
    assert alone.returncode == 0, alone.stderr
    done = train(tmp_path / "two", language_model, 2, *flags, "--batch-size", "4", "--accumulate", "2")
    assert done.returncode == 0, done.stderr
    said = done.stdout.replace("\n", " ").replace(",", "")
    whole, held = re.search(r"full \d+ of (\d+) parameters; this process holds (\d+)", said).groups()  # type: ignore[union-attr]
    assert 0.45 < int(held) / int(whole) < 0.55
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    a, b = (load_policy(tmp_path / name / "checkpoints" / "last") for name in ("two", "one"))
    assert a.description.validation_loss == pytest.approx(b.description.validation_loss, rel=1e-5)
    for text, features in a.instructions.items():
        torch.testing.assert_close(features, b.instructions[text], rtol=0.02, atol=0.02)
    states = [load_training_state(tmp_path / name / "checkpoints" / "last").tensors for name in ("two", "one")]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-4)
    folder = tmp_path / "two" / "checkpoints" / "last"
    LanguageModel(str(folder / "language")).identity.require(a.description.language)


def test_after_a_kill_it_goes_on_with_another_number_of_processes(tmp_path: Path, language_model: Path) -> None:
    whole, folder, steps = (
        tmp_path / "whole",
        tmp_path / "run",
        (*("--max-steps", "60", "--save-every", "20"), "--finetune-language", "lora"),
    )
    assert train(whole, language_model, 1, *steps).returncode == 0
    running = subprocess.Popen(
        command(folder, language_model, 2, *steps), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "last").exists():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        running.terminate()  # torchrun kills its processes: they have sessions of their own
        running.wait()
    stopped = read_description(folder / "checkpoints" / "last").step
    assert 20 <= stopped < 60
    done = train(folder, language_model, 1, *steps)
    assert done.returncode == 0, done.stderr
    assert f"after step {stopped}" in done.stdout.replace("\n", " ")
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-3)


def test_a_failure_of_one_process_ends_all(tmp_path: Path, language_model: Path) -> None:
    (tmp_path / "run" / "best_model.pth").mkdir(parents=True)  # the main process cannot save
    started = time.monotonic()
    done = train(tmp_path / "run", language_model, 2)
    assert done.returncode != 0
    assert "vla-train: " in done.stderr
    assert losses(tmp_path / "run")  # it had begun
    assert time.monotonic() - started < 120


def test_another_number_of_samples_per_step_is_refused(tmp_path: Path, language_model: Path, one: Path) -> None:
    done = train(one, language_model, 1, "--accumulate", "2")
    assert done.returncode == 2
    assert (
        "samples per step (--batch-size · --accumulate · processes) were 16 · 1 · 1, are 16 · 2 · 1"
        in done.stderr.replace("\n", " ")
    )
