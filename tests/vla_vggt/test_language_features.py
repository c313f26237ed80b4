"""Features of instructions in a file, and the file that ships."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tasks.suites import SUITES, load_suite
from tests.tiny_language_model import save_tiny_language_model
from tests.vla_vggt.examples import train_arguments
from vla_vggt.models.language_encoder import LanguageEncoder, LanguageModel, LanguageModelError
from vla_vggt.models.language_features import (
    load_language,
    read_language_features,
    save_language_features,
)
from vla_vggt.pretrained import INSTRUCTIONS
from vla_vggt.training.checkpoint import load_policy
from vla_vggt.training.setup import prepare_training

SCRIPTS = Path(__file__).parents[2] / "scripts"
TEXTS = ("lift the cube", "put the bowl on the plate")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="module")
def file(language_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = LanguageModel(str(language_model))
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    save_language_features(path, model.identity, {text: model.encode(text) for text in TEXTS})
    return path


def test_they_are_the_models(language_model: Path, file: Path) -> None:
    model, stored = LanguageModel(str(language_model)), load_language(str(file), -1)
    assert stored.identity == model.identity
    for text in TEXTS:
        torch.testing.assert_close(stored.encode(text), model.encode(text), rtol=0, atol=0)
    assert isinstance(load_language(str(language_model), -1), LanguageModel)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_instruction_that_is_not_there_names_the_model(file: Path, language_model: Path) -> None:
    with pytest.raises(
        LanguageModelError, match=rf"features of 2 instructions, 'fly' is not among them.*made with {language_model}"
    ):
        load_language(str(file), -1).encode("fly")


def test_a_policy_takes_new_instructions_from_it_if_it_is_the_same_model(file: Path) -> None:
    stored = read_language_features(file)
    known = LanguageEncoder(identity=stored.identity, features={}, model=str(file), max_tokens=20)
    torch.testing.assert_close(known.encode(TEXTS[1]), stored.features[TEXTS[1]])
    other = dataclasses.replace(stored.identity, weights_sha256="another")
    with pytest.raises(LanguageModelError, match="expected the language model the policy was trained with"):
        LanguageEncoder(identity=other, features={}, model=str(file), max_tokens=20).encode(TEXTS[0])


def test_wrong_files_are_explained(file: Path, tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"expected features of layer 0, got layer -1"):
        load_language(str(file), 0)
    with pytest.raises(LanguageModelError, match="not readable as features of instructions"):
        read_language_features(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(LanguageModelError, match=r"cut\.safetensors: not readable as features"):
        read_language_features(cut)
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(LanguageModelError, match=r"holds no features of instructions \(format None\)"):
        read_language_features(tmp_path / "model.safetensors")


@pytest.mark.filterwarnings("ignore::tasks.demonstrations.UnnamedTaskWarning")
def test_training_needs_no_language_model(
    file: Path, language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLA_VGGT_CACHE", str(tmp_path / "cache"))
    policies = []
    for number, language in enumerate((language_model, file)):
        arguments = train_arguments(tmp_path / f"run {number}", language)
        prepare_training(arguments, say=lambda text: None, on_progress=lambda progress: None).run()
        policies.append(load_policy(arguments.log_dir))
    assert policies[0].sha256 == policies[1].sha256
    with pytest.raises(ValueError, match="--finetune-language needs a language model"):
        train_arguments(tmp_path / "tuned", file, finetune_language="lora")


def test_the_script_encodes_what_it_is_asked_for(language_model: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.safetensors"
    flags = ["--language-model", str(language_model), "--name", "tiny", "--output", str(made)]
    command = [sys.executable, str(SCRIPTS / "encode_instructions.py"), *flags, "--suites", "libero_goal_lan"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "20 instructions" in done.stdout
    stored = read_language_features(made)
    assert stored.identity.model == "tiny"
    assert {t.instruction_bddl for t in load_suite("libero_goal_lan")} <= stored.features.keys()


def test_the_file_that_ships_has_every_instruction_of_every_suite() -> None:
    shipped = read_language_features(INSTRUCTIONS)
    wanted = {
        text
        for suite in SUITES
        for task in load_suite(suite)
        for text in (task.instruction_file_name, task.instruction_bddl)
    }
    assert wanted == shipped.features.keys()
    assert shipped.identity.width == 896
    assert "Qwen2.5-Coder-0.5B-Instruct" in shipped.identity.model
    for text, features in shipped.features.items():
        assert features.dtype == torch.bfloat16
        assert features.shape[0] <= 21, text
        assert features.float().isfinite().all()
    one, other = (shipped.features[t.instruction_file_name] for t in load_suite("libero_spatial")[:2])
    assert not torch.equal(one[-1], other[-1])  # the last token has read all


def test_a_copy_elsewhere_is_as_good(tmp_path: Path) -> None:
    shutil.copy(INSTRUCTIONS, tmp_path / "copy.safetensors")
    assert (
        load_language(str(tmp_path / "copy.safetensors"), -1).identity == read_language_features(INSTRUCTIONS).identity
    )
