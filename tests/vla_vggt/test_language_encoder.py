"""The language model's path, on a small one that really goes through `from_pretrained`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.tiny_language_model import WIDTH, save_tiny_language_model
from vla_vggt.models.language_encoder import LanguageEncoder, LanguageModel, LanguageModelError, check_length, pad_left


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("language"))


def encoder(folder: Path, made: LanguageModel, **changes: object) -> LanguageEncoder:
    given = {"identity": made.identity, "features": {}, "model": str(folder), "max_tokens": 31} | changes
    return LanguageEncoder(**given)  # type: ignore[arg-type]


def test_features_are_the_models_own(folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = LanguageModel(str(folder))
    features = model.encode("pick up the black bowl")
    tokens = AutoTokenizer.from_pretrained(folder)("pick up the black bowl", return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0]
    assert features.shape == (tokens["input_ids"].shape[1], WIDTH)
    assert model.identity.width == WIDTH
    torch.testing.assert_close(features, expected.to(torch.bfloat16))


def test_the_layer_is_a_choice(folder: Path) -> None:
    last, first = LanguageModel(str(folder)), LanguageModel(str(folder), layer=1)
    assert not torch.equal(last.encode("lift"), first.encode("lift"))
    assert (last.identity.layer, first.identity.layer) == (-1, 1)
    with pytest.raises(LanguageModelError, match="expected a layer from -3 to 2, got 7"):
        LanguageModel(str(folder), layer=7)


def test_the_identity_is_the_weights_not_the_place(folder: Path, tmp_path: Path) -> None:
    here = LanguageModel(str(folder)).identity
    elsewhere = LanguageModel(str(save_tiny_language_model(tmp_path / "copy"))).identity
    here.require(elsewhere)
    other = LanguageModel(str(save_tiny_language_model(tmp_path / "other", seed=1))).identity
    with pytest.raises(
        LanguageModelError, match="expected the language model the policy was trained with, .* got .*other"
    ):
        here.require(other)
    with pytest.raises(LanguageModelError, match="tokenizer_sha256"):
        here.require(dataclasses.replace(here, tokenizer_sha256="x"))


def test_what_was_encoded_needs_no_model(folder: Path) -> None:
    known = {"lift": torch.zeros(3, WIDTH, dtype=torch.bfloat16)}
    without = encoder(folder, LanguageModel(str(folder)), features=known, model="/no/such/folder")
    assert without.encode("lift") is known["lift"]
    with pytest.raises(LanguageModelError, match="cannot be loaded"):
        without.encode("place")


def test_a_new_instruction_loads_it_once_and_checks_it(folder: Path, tmp_path: Path) -> None:
    model = LanguageModel(str(folder))
    loads = encoder(folder, model)
    assert torch.equal(loads.encode("place it"), model.encode("place it"))
    assert loads.encode("place it") is loads.encode("place it")
    other = save_tiny_language_model(tmp_path / "other", seed=1)
    with pytest.raises(LanguageModelError, match="weights_sha256"):
        encoder(folder, model, model=str(other)).encode("place it")


def test_wrong_instructions(folder: Path) -> None:
    loads = encoder(folder, LanguageModel(str(folder)), max_tokens=4)
    with pytest.raises(ValueError, match="expected an instruction, got an empty one"):
        loads.encode("  ")
    with pytest.raises(
        ValueError, match="at most 4 tokens, got [0-9]+: 'pick up the black bowl'.*--max-language-tokens"
    ):
        loads.encode("pick up the black bowl")
    with pytest.raises(ValueError, match="at most 2 tokens, got 3"):
        check_length("x", torch.zeros(3, 4), 2)


def test_a_hub_model_that_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        LanguageModelError,
        match="(?s)the language model 'nobody/no-such-model' cannot be loaded.*hf download nobody/no-such-model",
    ):
        LanguageModel("nobody/no-such-model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        LanguageModelError, match="(?s)cannot be loaded.*Expected a folder as `save_pretrained` writes it"
    ):
        LanguageModel(str(tmp_path))


def test_padding_goes_to_the_left() -> None:
    padded, valid = pad_left([torch.ones(2, 3), torch.full((4, 3), 2.0)], 5)
    assert padded[:, :, 0].tolist() == [[0, 0, 0, 1, 1], [0, 2, 2, 2, 2]]
    assert valid.tolist() == [[False, False, False, True, True], [False, True, True, True, True]]
