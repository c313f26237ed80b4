"""Training that starts from another policy's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lift import write_libero
from tests.tiny_language_model import save_tiny_language_model
from tests.vla_vggt.examples import interrupt_at, train_arguments
from vla_vggt.models.language_encoder import LanguageModelError
from vla_vggt.training.checkpoint import CheckpointError, load_policy, read_description
from vla_vggt.training.setup import prepare_training
from vla_vggt.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::tasks.demonstrations.UnnamedTaskWarning")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture
def first(tmp_path: Path, language_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 6 steps with a chunk of 5 and images of 32²."""
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path / "first", language_model, chunk_steps=5, image_px=32).run()
    return tmp_path / "first"


def prepare(log_dir: Path, language_model: Path, **changes: Any) -> Trainer:
    arguments = train_arguments(log_dir, language_model, **changes)
    return prepare_training(arguments, say=lambda text: None, on_progress=lambda progress: None)


def test_weights_shape_and_scaling_come_with_it(tmp_path: Path, first: Path, language_model: Path) -> None:
    other = write_libero(tmp_path / "put_the_bowl_on_the_plate_demo.hdf5")
    changes: dict[str, Any] = {"data_path": (other,), "task_names": (), "init_from": first, "preset": "compact"}
    trainer = prepare(tmp_path / "second", language_model, **changes)
    start = load_policy(first)
    for name, weight in trainer.state().tensors.items():
        if name in start.weights:
            torch.testing.assert_close(weight.cpu(), start.weights[name])
    trainer.run()
    was, is_ = read_description(first), read_description(tmp_path / "second" / "checkpoints" / "last")
    assert is_.model == was.model
    assert (is_.model.image_px, is_.model.grid) == (32, 2)
    assert is_.action_statistics == was.action_statistics
    assert is_.proprio_statistics == was.proprio_statistics
    assert is_.step == 6
    assert {task.instruction for task in is_.tasks} > {task.instruction for task in was.tasks}
    assert set(was.init_states_sha256) <= set(is_.init_states_sha256)
    trained = load_policy(tmp_path / "second" / "checkpoints" / "last").weights
    assert any(not torch.equal(trained[name], weight) for name, weight in start.weights.items())


def test_it_goes_on_after_an_interruption(tmp_path: Path, first: Path, language_model: Path) -> None:
    prepare(tmp_path / "whole", language_model, init_from=first).run()
    broken = prepare(tmp_path / "broken", language_model, init_from=first)
    interrupt_at(broken, 4)
    again = prepare(tmp_path / "broken", language_model, init_from=first)
    assert again.step == 3
    again.run()
    assert load_policy(tmp_path / "broken").sha256 == load_policy(tmp_path / "whole").sha256
    with pytest.raises(CheckpointError, match="--init-from was .*first, is None"):
        prepare(tmp_path / "broken", language_model, chunk_steps=5)


def test_what_contradicts_it_is_refused(tmp_path: Path, first: Path, language_model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"--chunk-steps: expected 5, as .*first has it, got 7. Leave it out"):
        prepare(tmp_path / "second", language_model, init_from=first, chunk_steps=7)
    with pytest.raises(CheckpointError, match="fine-tuned is not supported"):
        prepare(tmp_path / "second", language_model, init_from=first, finetune_language="lora")
    with pytest.raises(CheckpointError, match="expected a VLA-VGGT checkpoint at"):
        prepare(tmp_path / "second", language_model, init_from=tmp_path / "nothing")
    other = save_tiny_language_model(tmp_path / "other", seed=1)
    with pytest.raises(LanguageModelError, match="expected the language model the policy was trained with"):
        prepare(tmp_path / "second", other, init_from=first, task_names=("raise the cube",))
