"""A checkpoint as a policy: conformance, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.interface import ActionChunk, OpenLoopSpec, Policy
from tests.tiny_language_model import WIDTH as LANGUAGE_WIDTH
from tests.tiny_language_model import save_tiny_language_model
from tests.vla_vggt.examples import observation, untrained
from vla_vggt.configs.model_config import tiny
from vla_vggt.device import choose_device
from vla_vggt.models.language_encoder import LanguageModel, LanguageModelError
from vla_vggt.models.language_features import read_language_features
from vla_vggt.policy import VlaVggtPolicy, load
from vla_vggt.pretrained import INSTRUCTIONS
from vla_vggt.training.checkpoint import CheckpointError, PolicyCheckpoint, save_pth

DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES, ids=str)
def policy(request: pytest.FixtureRequest) -> VlaVggtPolicy:
    return VlaVggtPolicy(untrained(), device=request.param, batch_size=4)


def actions(policy: VlaVggtPolicy, *numbers: int, **options: int) -> list[np.ndarray]:
    chunks = policy.act([observation(number, **options) for number in numbers])  # type: ignore[arg-type]
    assert all(isinstance(chunk, ActionChunk) for chunk in chunks)
    return [chunk.actions for chunk in chunks]


def test_it_is_a_policy_with_the_checkpoints_needs(policy: VlaVggtPolicy) -> None:
    assert isinstance(policy, Policy)
    assert policy.needs.cameras == ("agentview", "robot0_eye_in_hand")
    assert policy.needs.image_convention == "rotated_180"
    assert policy.needs.ensemble == OpenLoopSpec(execute_steps=4)
    assert policy.needs.batch_size == 4
    assert policy.needs.min_image_px == 64
    assert policy.dtype in ("float32", "bfloat16")
    assert actions(policy, 0, 1, 2, 3)[0].shape == (8, 7)


def test_slot_and_neighbours_change_no_bit(policy: VlaVggtPolicy) -> None:
    first = actions(policy, 0, 1, 2, 3)
    for a, b in zip(first, actions(policy, 3, 2, 1, 0)[::-1], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(actions(policy, 0, 7, 8, 9)[0], first[0])
    np.testing.assert_array_equal(actions(policy, 0, 0, 0, 0)[3], first[0])


def test_everything_in_an_observation_counts(policy: VlaVggtPolicy) -> None:
    base = observation(0)
    others = [
        dataclasses.replace(base, images=255 - base.images),
        dataclasses.replace(base, proprio=base.proprio + 1),
        dataclasses.replace(base, instruction="drop the cube"),
    ]
    chunks = policy.act([base, *others])
    for other in chunks[1:]:
        assert np.abs(other.actions - chunks[0].actions).max() > 1e-4


def test_images_of_other_sizes_are_resized_on_the_way(policy: VlaVggtPolicy) -> None:
    large = actions(policy, 0, 1, 2, 3, size=256)
    assert np.isfinite(large).all()
    again = actions(policy, 0, 1, 2, 3)
    np.testing.assert_array_equal(again, actions(policy, 0, 1, 2, 3))
    np.testing.assert_array_equal(large, actions(policy, 0, 1, 2, 3, size=256))


def test_a_larger_rendering_is_first_reduced_to_what_was_recorded() -> None:
    coarse = VlaVggtPolicy(untrained(recorded_px=16), device=torch.device("cpu"), batch_size=1)
    small = observation(0, size=16)
    blocks = dataclasses.replace(small, images=np.kron(small.images, np.ones((1, 4, 4, 1), dtype=np.uint8)))
    ours, theirs = (coarse.act([o])[0].actions for o in (small, blocks))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert coarse.needs.min_image_px == 16


def test_actions_come_in_the_demonstrations_units() -> None:
    policy = untrained()
    wide = dataclasses.replace(
        policy.description.action_statistics,
        q01=tuple(10 * x for x in policy.description.action_statistics.q01),
        q99=tuple(10 * x for x in policy.description.action_statistics.q99),
    )
    scaled = dataclasses.replace(policy, description=dataclasses.replace(policy.description, action_statistics=wide))
    small, large = (
        VlaVggtPolicy(p, device=torch.device("cpu"), batch_size=1).act([observation(0)])[0].actions
        for p in (policy, scaled)
    )
    np.testing.assert_allclose(large[:, :6], 10 * small[:, :6], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(large[:, 6], small[:, 6])


def test_a_missing_camera(policy: VlaVggtPolicy) -> None:
    with pytest.raises(
        ValueError, match=r"expected images of agentview, robot0_eye_in_hand as \(2, 64, 64, 3\), got \(1, 64, 64, 3\)"
    ):
        actions(policy, 0, 1, 2, 3, cameras=1)


def test_weights_of_another_shape_or_missing() -> None:
    policy = untrained()
    cpu = torch.device("cpu")
    wrong = policy.weights | {"action_head.output.weight": torch.zeros(6, 64)}
    with pytest.raises(CheckpointError, match=r"action_head\.output\.weight should be \(7, 64\), is \(6, 64\)"):
        VlaVggtPolicy(dataclasses.replace(policy, weights=wrong), device=cpu, batch_size=1)
    less = {name: weight for name, weight in policy.weights.items() if name != "vision_encoder.rows"}
    with pytest.raises(CheckpointError, match=r"vision_encoder\.rows should be \(4, 64\), is missing"):
        VlaVggtPolicy(dataclasses.replace(policy, weights=less), device=cpu, batch_size=1)


def with_language_model(folder: Path) -> PolicyCheckpoint:
    """A policy whose instructions that model encoded."""
    model = LanguageModel(str(folder))
    policy = untrained(model=tiny(LANGUAGE_WIDTH), language=model.identity)
    return dataclasses.replace(policy, instructions={"lift the cube": model.encode("lift the cube")})


def test_a_new_instruction_is_encoded_before_the_first_episode(tmp_path: Path) -> None:
    folder = save_tiny_language_model(tmp_path / "language")
    save_pth(tmp_path / "a.pth", with_language_model(folder))
    policy = load(
        tmp_path / "a.pth", device="cpu", instructions=["lift the cube", "place it on the plate"], batch_size=1
    )
    old = policy.act([observation(0, instruction="lift the cube")])[0].actions
    policy.act([observation(0, instruction="place the cube")])  # nobody announced it
    np.testing.assert_array_equal(policy.act([observation(0, instruction="lift the cube")])[0].actions, old)
    assert policy.act([observation(0, instruction="place it on the plate")])[0].actions.shape == (8, 7)
    folder.rename(tmp_path / "moved")
    load(tmp_path / "a.pth", device="cpu", instructions=["lift the cube"])  # needs no language model
    with pytest.raises(
        LanguageModelError, match="(?s)the language model .*language' cannot be loaded.*--language-model"
    ):
        load(tmp_path / "a.pth", device="cpu", instructions=["place it on the plate"])
    load(tmp_path / "a.pth", device="cpu", instructions=["place it"], language_model=str(tmp_path / "moved"))
    other = save_tiny_language_model(tmp_path / "other", seed=1)
    with pytest.raises(LanguageModelError, match="expected the language model the policy was trained with"):
        load(tmp_path / "a.pth", device="cpu", instructions=["place it"], language_model=str(other))


def test_instructions_of_libero_need_no_language_model_where_the_shipped_features_are_its(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = read_language_features(INSTRUCTIONS)
    known, *others = shipped.features
    trained = dataclasses.replace(
        untrained(model=tiny(shipped.identity.width), language=shipped.identity),
        instructions={known: shipped.features[known]},
    )

    def make(checkpoint: PolicyCheckpoint) -> VlaVggtPolicy:
        return VlaVggtPolicy(checkpoint, device=torch.device("cpu"), batch_size=1)

    make(trained).encode(others)
    with pytest.raises(LanguageModelError):  # another model was named
        VlaVggtPolicy(trained, device=torch.device("cpu"), batch_size=1, language_model="nothing there").encode(others)
    (tmp_path / "cut.safetensors").write_bytes(INSTRUCTIONS.read_bytes()[:1000])
    monkeypatch.setattr("vla_vggt.pretrained.INSTRUCTIONS", tmp_path / "cut.safetensors")
    make(trained).encode([known])
    monkeypatch.undo()
    with pytest.raises(LanguageModelError, match=r"(?s)neither a folder nor a hub id.*--language-model FOLDER"):
        make(trained).encode(["sing a song"])
    by_another = dataclasses.replace(trained.description, language=dataclasses.replace(shipped.identity, layer=3))
    with pytest.raises(LanguageModelError):
        make(dataclasses.replace(trained, description=by_another)).encode(others)


def test_devices_and_missing_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="VLA-VGGT needs --checkpoint"):
        load(None)
    with pytest.raises(CheckpointError, match="found nothing"):
        load(tmp_path / "nowhere", device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"--device cuda: .*Use --device cpu\."):
        choose_device("cuda")
