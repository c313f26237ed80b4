"""`vla-train` and then `vla-eval --checkpoint`, as a user types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from rich.console import Console

from harness.arguments import EvalArguments
from harness.cli import with_trained_suites
from harness.preparation import check_images
from results.run_directory import RunDirectory
from tasks.interface import OpenLoopSpec, PolicyNeeds
from tasks.protocols import find_protocol
from tests.lift import LIFT, write_libero
from tests.tiny_language_model import save_tiny_language_model
from tests.vla_vggt.examples import train_arguments, untrained
from vla_vggt.cli import EXIT_OK, EXIT_USAGE, run
from vla_vggt.training.checkpoint import TrainedTask, save_pth

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))


def script(name: str, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `python scripts/NAME …` from another folder, with nothing but the installed package."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *command.split()],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.sim
def test_the_two_commands_of_the_readme_on_real_demonstrations(tmp_path: Path) -> None:
    """Verbatim, but for what makes them small: the model's size, the language model and the number of episodes."""
    language_model = save_tiny_language_model(tmp_path / "language")
    trained = script(
        "train.py",
        f"--data_path {LIFT} --task_names pick_and_place --batch_size 32 --num_epochs 2 --lr 1e-4 --log_dir ./logs"
        f" --preset tiny --language_model {language_model}",
        tmp_path,
    )
    assert trained.returncode == EXIT_OK, trained.stderr
    assert "warning:" in trained.stderr
    assert "taken as one task, 'pick and place'" in trained.stderr
    assert "Traceback" not in trained.stderr
    assert "best also as logs/best_model.pth" in trained.stdout
    evaluate = "--checkpoint ./logs/best_model.pth --device"
    without_suite = script("eval.py", f"{evaluate} cpu", tmp_path)
    assert without_suite.returncode == EXIT_USAGE
    assert "was trained on tasks of no LIBERO suite (pick_and_place): name one with --suite" in without_suite.stderr
    small = "--suite libero_object --tasks 0 --episodes 1 --workers 1 --videos none --output-dir run"
    evaluated = script("eval.py", f"{evaluate} cpu {small}", tmp_path)
    assert evaluated.returncode == EXIT_OK, evaluated.stderr
    assert "libero_object" in evaluated.stdout
    manifest = RunDirectory(tmp_path / "run").manifest()
    assert (manifest.policy, manifest.dtype, manifest.ensemble) == ("vla-vggt", "float32", "open loop, 8 steps")
    assert manifest.cameras == ("agentview", "robot0_eye_in_hand")
    assert len(manifest.checkpoint_sha256) == 64
    (record,) = RunDirectory(tmp_path / "run").records()
    assert (record.steps, record.queries) == (280, 35)


def test_cuda_without_a_gpu_says_what_to_do(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    save_pth(tmp_path / "best_model.pth", untrained())
    ended = script("eval.py", "--checkpoint ./best_model.pth --device cuda", tmp_path)
    assert ended.returncode == EXIT_USAGE
    assert "--device cuda: " in ended.stderr
    assert "Use --device cpu." in ended.stderr


def test_without_a_suite_it_is_the_ones_trained_on(tmp_path: Path) -> None:
    tasks = tuple(
        TrainedTask(name=n, suite=s, instruction="lift the cube")
        for n, s in (("a", "libero_object"), ("b", "libero_goal"), ("c", "libero_object"))
    )
    save_pth(tmp_path / "a.pth", untrained(tasks=tasks))
    assert with_trained_suites(EvalArguments(checkpoint=tmp_path / "a.pth")).suite == ("libero_object", "libero_goal")
    named = EvalArguments(checkpoint=tmp_path / "a.pth", suite=("libero_10",))
    assert with_trained_suites(named) is named
    other = EvalArguments(checkpoint=tmp_path / "a.pth", policy="my:policy")
    assert with_trained_suites(other) is other


def test_a_protocol_that_renders_too_small_is_refused() -> None:
    def needs(cameras: tuple[str, ...], px: int) -> PolicyNeeds:
        return PolicyNeeds(
            cameras=cameras, image_convention=None, batch_size=1, ensemble=OpenLoopSpec(), min_image_px=px
        )

    small, usual = find_protocol("libero"), find_protocol("openvla")
    check_images(needs(("agentview",), 224), usual)
    check_images(needs((), 224), small)
    check_images(needs(("agentview",), 128), small)
    with pytest.raises(
        ValueError,
        match=r"at least 224 px, the protocol 'libero' renders 128\. Protocols that will do: openvla, openpi",
    ):
        check_images(needs(("agentview",), 224), small)
    with pytest.raises(ValueError, match="Protocols that will do: none"):
        check_images(needs(("agentview",), 512), usual)


def nan_in_the_actions(folder: Path) -> dict[str, object]:
    file = write_libero(folder / "nan.hdf5", instruction="lift the cube", task="lift")
    with h5py.File(file, "a") as out:
        out["data/demo_1/actions"][3, 2] = np.nan
    return {"data_path": (file,), "task_names": ()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            lambda folder: {"data_path": (folder / "nothing.hdf5",)},
            "expected an HDF5 file, a decoded set, a LeRobot dataset, or a folder of them at",
        ),
        (lambda folder: {"task_names": ()}, "lift.hdf5: no instruction in it"),
        (lambda folder: {"device": "cuda"}, "Use --device cpu."),
        (lambda folder: {"language_model": str(folder)}, "Expected a folder as `save_pretrained` writes it"),
        (lambda folder: {"cameras": ("wrist",)}, "unknown camera 'wrist'; LIBERO's are agentview, robot0_eye_in_hand"),
        (lambda folder: {"max_language_tokens": 2}, "expected an instruction of at most 2 tokens, got"),
        (lambda folder: {"validation_fraction": 1.5}, "--validation-fraction: expected at least 0 and below 1"),
        (nan_in_the_actions, "nan.hdf5 demo_1: expected finite actions, got nan at step 3, dimension 2"),
    ],
)
def test_wrong_input_is_explained_before_anything_runs(tmp_path: Path, changes: object, message: str) -> None:
    language_model = save_tiny_language_model(tmp_path / "language")
    (tmp_path / "empty").mkdir()
    given = changes(tmp_path / "empty")  # type: ignore[operator]
    if given.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    arguments = train_arguments(tmp_path / "run", language_model, **given)
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        status = run(arguments, out=Console(file=out, width=200), errors=Console(file=err, width=200))
        err.seek(0)
        assert (status, message in err.read()) == (EXIT_USAGE, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data-path a.hdf5 --batch-size 0", "--batch-size: expected at least 1, got 0"),
        ("--data-path a.hdf5 --lr -1", "--lr: expected a positive number, got -1.0"),
        ("--data-path a.hdf5 --ema-decay 1", "--ema-decay: expected at least 0 and below 1, got 1.0"),
        ("--data-path a.hdf5 --augment-shift 0.5", "--augment-shift: expected at least 0 and below 0.5, got 0.5"),
        ("--data-path a.hdf5 --max-steps 0", "--max-steps: expected at least 1, got 0"),
    ],
)
def test_numbers_that_make_no_sense(tmp_path: Path, flags: str, message: str) -> None:
    ended = script("train.py", flags, tmp_path)
    assert ended.returncode == EXIT_USAGE
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
