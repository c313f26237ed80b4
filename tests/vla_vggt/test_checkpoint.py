"""Checkpoints: what goes in comes out, and damage is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vla_vggt.examples import untrained
from vla_vggt.data.statistics import StatisticsError
from vla_vggt.training import checkpoint as checkpoint_module
from vla_vggt.training.checkpoint import (
    CheckpointError,
    PolicyCheckpoint,
    TrainingState,
    find_checkpoint,
    link_checkpoint,
    load_policy,
    load_training_state,
    read_description,
    save_checkpoint,
    save_pth,
)

STATE = TrainingState(tensors={"weights.a": torch.arange(3.0)}, progress={"step": 7, "best": 0.5})


def save(folder: Path, policy: PolicyCheckpoint | None = None) -> Path:
    save_checkpoint(folder, policy or untrained(), STATE)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "checkpoint.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def assert_equal(a: PolicyCheckpoint, b: PolicyCheckpoint) -> None:
    assert a.description == b.description
    for ours, theirs in ((a.weights, b.weights), (a.instructions, b.instructions)):
        assert list(ours) == list(theirs) or sorted(ours) == sorted(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert a.sha256 == b.sha256


def test_a_folder_and_a_file_come_back_as_they_were(tmp_path: Path) -> None:
    policy = untrained()
    assert_equal(load_policy(save(tmp_path / "000007")), policy)
    save_pth(tmp_path / "best_model.pth", policy)
    assert_equal(load_policy(tmp_path / "best_model.pth"), policy)
    assert read_description(tmp_path / "best_model.pth") == read_description(tmp_path / "000007") == policy.description
    assert torch.load(tmp_path / "best_model.pth", weights_only=True).keys() == {"metadata", "weights", "instructions"}
    state = load_training_state(tmp_path / "000007")
    assert state.progress == STATE.progress
    assert torch.equal(state.tensors["weights.a"], STATE.tensors["weights.a"])


def test_the_fingerprint_is_of_what_decides_the_actions() -> None:
    policy = untrained()
    assert untrained(step=9, validation_loss=None).sha256 == policy.sha256
    assert untrained(recorded_px=32).sha256 != policy.sha256
    weights = policy.weights | {"action_head.output.bias": torch.ones(7)}
    assert dataclasses.replace(policy, weights=weights).sha256 != policy.sha256


def test_best_and_last_are_found_and_the_rest_goes(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step, names in ((1, ("best", "last")), (2, ("last",)), (3, ("best", "last")), (4, ("last",))):
        made = save(folder / f"{step:06d}", untrained(step=step))
        for name in names:
            link_checkpoint(made, name)
    assert sorted(p.name for p in folder.iterdir()) == ["000003", "000004", "best", "last"]
    assert read_description(tmp_path).step == 3
    assert read_description(folder / "last").step == 4
    assert find_checkpoint(folder).name == "best"


@pytest.mark.parametrize("name", ["model.safetensors", "instructions.safetensors"])
def test_a_truncated_file(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "c")
    file = folder / name
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=f"{name} is damaged, perhaps cut off while copying"):
        load_policy(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}; it was not copied whole"):
        load_policy(folder)


def test_a_truncated_pth_and_a_foreign_one(tmp_path: Path) -> None:
    file = tmp_path / "best_model.pth"
    save_pth(file, untrained())
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(CheckpointError, match=r"best_model\.pth: not a readable checkpoint \(cut off"):
        load_policy(file)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(CheckpointError, match="is no VLA-VGGT checkpoint: expected metadata, weights and instructions"):
        load_policy(file)
    torch.save(Path, file)  # would have to be unpickled
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_policy(file)


def test_nothing_there_and_something_else(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a VLA-VGGT checkpoint at .*nowhere.* found nothing"):
        load_policy(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"found a folder with a\.txt"):
        load_policy(tmp_path)
    folder = save(tmp_path / "c")
    edit(folder, format="something else")
    with pytest.raises(CheckpointError, match="is no VLA-VGGT checkpoint"):
        load_policy(folder)
    edit(folder, format="vla-vggt checkpoint", version=99)
    with pytest.raises(CheckpointError, match="expected format version 1, got 99"):
        load_policy(folder)
    (folder / "checkpoint.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"checkpoint\.json is damaged"):
        load_policy(folder)


def test_statistics_that_are_missing_or_of_another_width(tmp_path: Path) -> None:
    folder = save(tmp_path / "c")
    edit(folder, action_statistics=None)
    with pytest.raises(CheckpointError, match="the checkpoint does not say action_statistics"):
        load_policy(folder)
    good = dataclasses.asdict(untrained().description.proprio_statistics)
    edit(folder, action_statistics=good)
    with pytest.raises(StatisticsError, match="statistics of actions: expected 7 finite entries"):
        load_policy(folder)


def test_features_and_configuration_that_do_not_fit(tmp_path: Path) -> None:
    folder = save(tmp_path / "c")
    edit(folder, instructions=["lift the cube"])
    with pytest.raises(CheckpointError, match="expected features of 1 instructions, found 2"):
        load_policy(folder)
    edit(folder, instructions=["a", "b"], model={"width": 3, "cameras": []})
    with pytest.raises(CheckpointError, match="the configuration in it is not this version's"):
        load_policy(folder)
    edit(folder, progress=None)
    with pytest.raises(CheckpointError, match="this checkpoint cannot be trained on"):
        load_training_state(folder)


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "000007")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(OSError, match="cannot save .*000007: .*No space left on device.*Free some space"):
        save(folder, untrained(step=8))
    monkeypatch.setattr(checkpoint_module.torch, "save", full)
    with pytest.raises(OSError, match=r"cannot save .*best_model\.pth"):
        save_pth(tmp_path / "best_model.pth", untrained())
    assert load_policy(folder).description.step == 7
    assert [p.name for p in tmp_path.iterdir()] == ["000007"]
