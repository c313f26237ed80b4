"""Training: it learns, it goes on exactly, it says when it cannot."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lift import write_libero
from tests.tiny_language_model import save_tiny_language_model
from tests.vla_vggt.examples import interrupt_at, train_arguments
from vla_vggt.training.checkpoint import CheckpointError, load_policy, read_description
from vla_vggt.training.plan import Progress
from vla_vggt.training.setup import prepare_training
from vla_vggt.training.trainer import DivergedError, Trainer

pytestmark = pytest.mark.filterwarnings("ignore::tasks.demonstrations.UnnamedTaskWarning")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))


def prepare(log_dir: Path, language_model: Path, said: list[str] | None = None, **changes: Any) -> Trainer:
    said = [] if said is None else said
    arguments = train_arguments(log_dir, language_model, **changes)
    return prepare_training(arguments, say=said.append, on_progress=lambda progress: None)


def losses(log_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (log_dir / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def test_a_run_leaves_what_it_says(tmp_path: Path, language_model: Path) -> None:
    seen: list[Progress] = []
    arguments = train_arguments(tmp_path / "run", language_model)
    prepare_training(arguments, say=lambda text: None, on_progress=seen.append).run()
    assert [progress.step for progress in seen] == [2, 3, 4, 6]
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == {"best_model.pth", "checkpoints", "losses.jsonl", "tensorboard"}
    description = read_description(folder / "checkpoints" / "last")
    assert description.step == 6
    assert description.validation_loss is not None
    assert description.tasks[0].instruction == "lift the cube"
    assert len(description.init_states_sha256) == 2  # one of three demonstrations is held out
    assert description.action_statistics.count < 174
    assert description.training["batch_size"] == 8
    assert load_policy(folder / "best_model.pth").sha256 == load_policy(folder).sha256


def test_tensorboard_has_losses_by_entry_and_a_picture(tmp_path: Path, language_model: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    prepare(tmp_path / "run", language_model).run()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "train/loss_gripper", "train/learning_rate", "train/gradient_norm"} <= scalars
    assert {"validation/loss", "validation/loss_rotation_z", "speed/samples_per_s"} <= scalars
    assert events.Tags()["images"] == ["chunks/validation"]
    assert [event.step for event in events.Scalars("validation/loss")] == [3, 6]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_going_on_equals_never_having_stopped_loss_by_loss(
    tmp_path: Path, language_model: Path, accumulate: int
) -> None:
    options = {"accumulate": accumulate, "max_steps": 7}
    prepare(tmp_path / "whole", language_model, **options).run()
    stopped = prepare(tmp_path / "stopped", language_model, **options)
    interrupt_at(stopped, 5)
    assert len(losses(tmp_path / "stopped")) == 4  # logged beyond the checkpoint at step 3: to be dropped
    said: list[str] = []
    resumed = prepare(tmp_path / "stopped", language_model, said, **options)
    assert resumed.step == 3
    assert any("Resuming" in text and "after step 3" in text for text in said)
    assert not any("Encoding" in text for text in said)  # the checkpoint has the features
    resumed.run()
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    whole, again = load_policy(tmp_path / "whole"), load_policy(tmp_path / "stopped")
    assert all(torch.equal(whole.weights[name], again.weights[name]) for name in whole.weights)


def test_accumulating_equals_a_larger_batch(tmp_path: Path, language_model: Path) -> None:
    prepare(tmp_path / "one", language_model, batch_size=16, max_steps=4, augment=False).run()
    prepare(tmp_path / "two", language_model, batch_size=8, accumulate=2, max_steps=4, augment=False).run()
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_how_far_images_are_shifted_counts_until_nothing_is_augmented(tmp_path: Path, language_model: Path) -> None:
    for name, options in {"far": {}, "less": {"augment_shift": 0.0}}.items():
        prepare(tmp_path / name, language_model, max_steps=2, **options).run()
        prepare(tmp_path / f"{name}, plain", language_model, max_steps=2, augment=False, **options).run()
    assert losses(tmp_path / "far") != losses(tmp_path / "less")
    assert losses(tmp_path / "far, plain") == losses(tmp_path / "less, plain")


def test_a_run_from_before_a_flag_goes_on_with_what_its_default_does(tmp_path: Path, language_model: Path) -> None:
    prepare(tmp_path / "run", language_model, max_steps=2).run()
    file = tmp_path / "run" / "checkpoints" / "last" / "checkpoint.json"
    description = json.loads(file.read_text())
    del description["training"]["augment_shift"]
    file.write_text(json.dumps(description))
    assert prepare(tmp_path / "run", language_model, max_steps=2).step == 2
    with pytest.raises(CheckpointError, match=r"--augment-shift was 0\.04, is 0\.0"):
        prepare(tmp_path / "run", language_model, max_steps=2, augment_shift=0.0)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, language_model: Path) -> None:
    prepare(tmp_path / "run", language_model).run()
    before = losses(tmp_path / "run")
    again = prepare(tmp_path / "run", language_model)
    assert again.step == 6
    again.run()
    assert losses(tmp_path / "run") == before


def test_seeds_decide(tmp_path: Path, language_model: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(tmp_path / name, language_model, seed=seed, max_steps=3).run()
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 2e-3}, r"holds another run: --lr was 0\.001, is 0\.002\. Name another --log-dir"),
        ({"task_names": ("push it",)}, "--task-names was .*; the demonstrations differ"),
        ({"preset": "small"}, "--preset was tiny, is small"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(
    tmp_path: Path, language_model: Path, change: dict[str, Any], message: str
) -> None:
    prepare(tmp_path / "run", language_model).run()
    with pytest.raises(CheckpointError, match=message):
        prepare(tmp_path / "run", language_model, **change)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, language_model: Path) -> None:
    trainer = prepare(tmp_path / "run", language_model, max_steps=10)
    original = trainer.train_step

    def poisoned(batches: Any) -> torch.Tensor:
        row = original(batches)
        return row * torch.nan if trainer.step == 5 else row

    trainer.train_step = poisoned  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="the loss is nan at step 5: training diverged.*--lr"):
        trainer.run()
    assert read_description(tmp_path / "run" / "checkpoints" / "last").step == 3


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path, language_model: Path) -> None:
    trainer = prepare(tmp_path / "a", language_model)
    trainer.run()
    state = trainer.state()
    name = "weights.action_head.output.bias"
    wrong = dataclasses.replace(state, tensors=state.tensors | {name: torch.zeros(3)})
    with pytest.raises(
        ValueError, match=r"expected weights\.action_head\.output\.bias \[7\] in the checkpoint, found \[3\]"
    ):
        prepare(tmp_path / "b", language_model).restore(wrong, {})


def test_several_tasks_each_with_its_instruction(tmp_path: Path, language_model: Path) -> None:
    write_libero(tmp_path / "a.hdf5", task="a", instruction="lift the cube")
    write_libero(tmp_path / "b.hdf5", task="b", instruction="place the cube", after=True)
    said: list[str] = []
    files = (tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    prepare(tmp_path / "run", language_model, said, data_path=files, task_names=()).run()
    assert load_policy(tmp_path / "run").instructions.keys() == {"lift the cube", "place the cube"}
    assert any("recorded before" in text and "a.hdf5" in text for text in said)
    assert any("recorded after" in text and "b.hdf5" in text for text in said)
    assert any("4 demonstrations of 2 tasks" in text and "2 held out" in text for text in said)


def test_three_real_demonstrations_are_learnt_by_heart(tmp_path: Path, language_model: Path) -> None:
    """Two minutes on two cores. What is learnt is every jerk of three people's hands, 174 chunks of 8 actions."""
    options = {"cameras": ("agentview",), "augment": False, "validation_fraction": 0.0, "weight_decay": 0.0}
    steps = {"batch_size": 24, "max_steps": 5000, "save_every": 5000, "log_every": 1000, "lr": 5e-3}
    prepare(tmp_path / "run", language_model, **options, **steps).run()
    fell_to = losses(tmp_path / "run")
    assert sum(fell_to[-5:]) / 5 < 0.02 * fell_to[0]
