"""A language model that is trained too: it changes, it is saved, it goes on exactly, and a policy uses it for new instructions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_language_model import save_tiny_language_model
from tests.vla_vggt.examples import interrupt_at, observation, train_arguments
from vla_vggt.models.language_encoder import LanguageEncoder, LanguageModel, LanguageModelError
from vla_vggt.models.tuned_language import TunedLanguage
from vla_vggt.policy import load
from vla_vggt.training.checkpoint import load_policy
from vla_vggt.training.setup import prepare_training
from vla_vggt.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::tasks.demonstrations.UnnamedTaskWarning")
TEXTS = ("lift the cube", "place the bowl on the plate next to the ramekin")
NEW = "place the cube in the basket"


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))


def prepare(log_dir: Path, language_model: Path, tuning: str, **changes: Any) -> Trainer:
    arguments = train_arguments(log_dir, language_model, finetune_language=tuning, lr=5e-3, **changes)
    return prepare_training(arguments, say=lambda text: None, on_progress=lambda progress: None)


def losses(log_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (log_dir / "losses.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("layer", [-1, 1])
def test_untrained_it_gives_the_frozen_models_features(language_model: Path, tuning: Any, layer: int) -> None:
    frozen = LanguageModel(str(language_model), layer)
    tuned = TunedLanguage(
        LanguageModel(str(language_model), layer), tuning=tuning, rank=4, instructions=TEXTS, length=20
    )
    features, valid = tuned.encode()
    assert features.shape == (2, 20, 32)
    for row, text in enumerate(TEXTS):
        alone = frozen.encode(text)
        assert valid[row].tolist() == [False] * (20 - len(alone)) + [True] * len(alone)
        torch.testing.assert_close(features[row, valid[row]].to(torch.bfloat16), alone, rtol=0.02, atol=0.02)
        assert (features[row, ~valid[row]] == 0).all()
        torch.testing.assert_close(tuned.features()[text], alone, rtol=0.02, atol=0.02)
    features.sum().backward()
    trained = {name for name, p in tuned.network.named_parameters() if p.requires_grad}
    assert trained
    assert all((p.grad is not None) == (name in trained) for name, p in tuned.network.named_parameters())
    assert all("lora" in name for name in trained) == (tuning == "lora")
    assert any("layers.1." in name for name in trained) == (layer == -1)


def test_every_call_of_the_module_has_a_tensor_in_it(language_model: Path) -> None:
    """On a GPU the hooks of FSDP2 end with an IndexError otherwise (seen with torch 2.11, NCCL); on a CPU they do not mind."""
    model = LanguageModel(str(language_model), -1)
    tuned = TunedLanguage(model, tuning="full", rank=4, instructions=TEXTS, length=20)
    calls: list[tuple[Any, ...]] = []
    tuned.register_forward_pre_hook(lambda module, arguments: calls.append(arguments))
    tuned.encode()
    tuned.features()
    assert len(calls) == 2
    assert all(isinstance(arguments[0], torch.Tensor) for arguments in calls)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_it_is_trained_and_saved_and_a_policy_uses_it(tmp_path: Path, language_model: Path, tuning: str) -> None:
    prepare(tmp_path / "run", language_model, tuning, max_steps=8, ema_decay=0.0).run()
    folder = tmp_path / "run" / "checkpoints" / "last"
    checkpoint = load_policy(folder)
    frozen = LanguageModel(str(language_model))
    identity = checkpoint.description.language
    assert bool(identity.adapter_sha256) == (tuning == "lora")
    assert (identity.weights_sha256 == frozen.identity.weights_sha256) == (tuning == "lora")
    before, after = frozen.encode(TEXTS[0]).float(), checkpoint.instructions[TEXTS[0]].float()
    assert (after - before).abs().max() > 0.05
    encoder = LanguageEncoder(
        identity=identity,
        features={},
        model=str(language_model if tuning == "lora" else folder / "language"),
        max_tokens=31,
        adapter=folder / "language" if tuning == "lora" else None,
    )
    torch.testing.assert_close(encoder.encode(TEXTS[0]).float(), after, rtol=0.02, atol=0.02)
    policy = load(folder, device="cpu", instructions=(NEW,))
    known, new = (policy.act([observation(0, instruction=text)])[0].actions for text in (TEXTS[0], NEW))
    assert (known != new).any()
    other = save_tiny_language_model(tmp_path / "other", seed=1)
    with pytest.raises(
        LanguageModelError, match=r"expected the language model the policy was trained with.*weights_sha256"
    ):
        load(folder, device="cpu", language_model=str(other), instructions=(NEW,))


def test_damaged_additions_are_named(tmp_path: Path, language_model: Path) -> None:
    prepare(tmp_path / "run", language_model, "lora", max_steps=1).run()
    folder = Path(shutil.copytree((tmp_path / "run" / "checkpoints" / "last").resolve(), tmp_path / "copy"))
    (folder / "language" / "adapter_model.safetensors").write_bytes(b"cut")
    load(folder, device="cpu")  # the instructions trained on need no language model
    with pytest.raises(LanguageModelError, match="the additions to the language model cannot be loaded"):
        load(folder, device="cpu", instructions=(NEW,))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_going_on_equals_never_having_stopped(tmp_path: Path, language_model: Path, tuning: str) -> None:
    prepare(tmp_path / "whole", language_model, tuning).run()
    stopped = prepare(tmp_path / "stopped", language_model, tuning)
    interrupt_at(stopped, 3)
    resumed = prepare(tmp_path / "stopped", language_model, tuning)
    assert resumed.step == 3
    resumed.run()
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    whole, again = load_policy(tmp_path / "whole"), load_policy(tmp_path / "stopped")
    assert whole.sha256 == again.sha256
    assert whole.description.language == again.description.language
