"""Presets and what a configuration refuses."""

from __future__ import annotations

import dataclasses

import pytest

from vla_vggt.configs.model_config import PRESETS, ModelConfig, tiny
from vla_vggt.models.vla_model import VLAModel


def parameters(config: ModelConfig) -> int:
    return sum(parameter.numel() for parameter in VLAModel(config).parameters())


def test_the_presets_are_as_large_as_they_say() -> None:
    sizes = {name: parameters(preset(896)) for name, preset in PRESETS.items()}
    assert sizes["compact"] <= 14_000_000
    assert 90_000_000 < sizes["base"] < 97_000_000
    assert 22_000_000 < sizes["small"] < 25_000_000
    assert sizes["tiny"] < 300_000
    assert (PRESETS["base"](896).width, PRESETS["base"](896).layers) == (768, 12)
    assert PRESETS["small"](896).width == 384


@pytest.mark.parametrize("name", PRESETS)
def test_the_language_width_is_the_language_models(name: str) -> None:
    assert VLAModel(PRESETS[name](48)).language_projector.in_features == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "heads must divide width, got 5 and 64"),
        ({"patch_px": 15}, "patch_px must divide image_px, got 15 and 64"),
        ({"image_px": 0}, "image_px must be at least 1, got 0"),
        ({"neighbours": 6}, "neighbours must be 0, 4 or 8, got 6"),
        ({"cameras": ("wrist",)}, "cameras must be different ones of agentview, robot0_eye_in_hand, got"),
        ({"cameras": ()}, "cameras must be different ones of"),
        ({"cameras": ("agentview", "agentview")}, "cameras must be different ones of"),
        ({"chunk_steps": 0}, "chunk_steps must be at least 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny(8), **change)  # type: ignore[arg-type]
