"""The network: shapes, padding, and that the graph is what it says."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vla_vggt.configs.model_config import PRESETS, ModelConfig, tiny
from vla_vggt.models.components.token_graph import EdgeListGraph, edge_list
from vla_vggt.models.vla_model import ModelInputs, VLAModel

DOUBLE = torch.float64


def inputs(config: ModelConfig, batch: int = 2, language_tokens: int = 7, padding: int = 2) -> ModelInputs:
    generator = torch.Generator().manual_seed(0)
    valid = torch.ones(batch, language_tokens, dtype=torch.bool)
    valid[0, :padding] = False
    return ModelInputs(
        images=torch.rand(batch, len(config.cameras), 3, config.image_px, config.image_px, generator=generator) * 2 - 1,
        language=torch.randn(batch, language_tokens, config.language_width, generator=generator),
        language_valid=valid,
        proprioception=torch.randn(batch, 8, generator=generator),
    )


def make(config: ModelConfig) -> VLAModel:
    torch.manual_seed(0)
    return VLAModel(config)


@pytest.mark.parametrize("name", PRESETS)
def test_shapes_of_every_preset(name: str) -> None:
    config = PRESETS[name](896)
    model, given = make(config), inputs(config)
    grid = config.image_px // 16
    with torch.inference_mode():
        tokens, positions = model.vision_encoder(given.images)
        assert tokens.shape == (2, 2 * grid**2, config.width)
        assert positions.shape == (grid**2, 2)
        assert (positions[0].tolist(), positions[grid + 2].tolist()) == ([0, 0], [1, 2])
        tokens, valid = model.tokens(given)
        assert tokens.shape == (2, 7 + 2 * grid**2 + 1, config.width)
        assert valid.sum(dim=1).tolist() == [tokens.shape[1] - 2, tokens.shape[1]]
        assert model.backbone(tokens, model.graph(valid), valid).shape == tokens.shape
        assert model(given).shape == (2, config.chunk_steps, 7)
        assert model(given).dtype == torch.float32
    if config.image_px == 224:
        assert grid**2 == 196


@pytest.mark.parametrize("px", [8, 16])
def test_a_convolutional_stem_keeps_the_patches_in_their_places(px: int) -> None:
    """A change to one patch's pixels moves the tokens of that patch and of those beside it, and of its own image only."""
    config = dataclasses.replace(tiny(16), stem="convolutions", patch_px=px)
    model, given = make(config), inputs(config)
    grid = config.grid
    row, column = 1, grid - 2
    changed = given.images.clone()
    changed[1, 1, :, row * px : (row + 1) * px, column * px : (column + 1) * px] += 1.0
    with torch.inference_mode():
        before, _ = model.vision_encoder(given.images)
        after, _ = model.vision_encoder(changed)
    moved = ((after - before).abs().amax(dim=-1) > 0).reshape(2, 2, grid, grid)
    assert not moved[0].any()
    assert not moved[1, 0].any()
    places = moved[1, 1].nonzero().tolist()
    assert [row, column] in places
    assert all(abs(r - row) <= 1 and abs(c - column) <= 1 for r, c in places)
    assert model(given).shape == (2, config.chunk_steps, 7)


def test_a_stem_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs patch_px of 4, 8, 16, … .*got 2 and 64"):
        make(dataclasses.replace(tiny(16), stem="convolutions", patch_px=2))


@pytest.mark.parametrize("pooling", ["mean", "queries"])
@pytest.mark.parametrize("proprioception", [True, False])
@pytest.mark.parametrize("cameras", [("agentview",), ("robot0_eye_in_hand", "agentview")])
def test_variants(pooling: str, proprioception: bool, cameras: tuple[str, ...]) -> None:
    config = dataclasses.replace(
        tiny(16),
        pooling=pooling,
        proprioception=proprioception,
        cameras=cameras,
        neighbours=8,
        chunk_steps=3,  # type: ignore[arg-type]
    )
    assert make(config)(inputs(config)).shape == (2, 3, 7)


@pytest.mark.parametrize("pooling", ["mean", "queries"])
def test_padding_changes_nothing(pooling: str) -> None:
    config = dataclasses.replace(tiny(16), pooling=pooling)  # type: ignore[arg-type]
    model, given = make(config), inputs(config, padding=0)
    longer = dataclasses.replace(
        given,
        language=torch.cat([torch.full((2, 4, 16), 50.0), given.language], dim=1),
        language_valid=torch.cat([torch.zeros(2, 4, dtype=torch.bool), given.language_valid], dim=1),
    )
    torch.testing.assert_close(model(given), model(longer), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("neighbours", [0, 4, 8])
def test_the_fast_path_equals_the_edge_list_in_canonical_order(neighbours: int) -> None:
    config = dataclasses.replace(tiny(16), neighbours=neighbours)  # type: ignore[arg-type]
    model, given = make(config), inputs(config)
    tokens, valid = model.tokens(given)
    graph = EdgeListGraph(edges=edge_list(model.layout(7), config.neighbours), valid=valid)
    reference = model.action_head(model.backbone(tokens, graph, valid), valid)
    torch.testing.assert_close(model(given), reference, atol=1e-6, rtol=1e-5)


def test_vision_tokens_may_stand_in_any_order_if_their_edges_follow() -> None:
    config = tiny(16)
    model, given = make(config), inputs(config)
    tokens, valid = model.tokens(given)
    edges = edge_list(model.layout(7), 4)
    order = torch.arange(tokens.shape[1])
    order[7 : 7 + config.vision_tokens] = 7 + torch.randperm(
        config.vision_tokens, generator=torch.Generator().manual_seed(1)
    )
    place = torch.argsort(order)  # where each token went
    straight = model.backbone(tokens, EdgeListGraph(edges=edges, valid=valid), valid)
    permuted = model.backbone(
        tokens[:, order], EdgeListGraph(edges=place[edges], valid=valid[:, order]), valid[:, order]
    )
    torch.testing.assert_close(
        model.action_head(straight, valid), model.action_head(permuted, valid[:, order]), atol=1e-5, rtol=1e-5
    )
    wrong = model.backbone(tokens[:, order], EdgeListGraph(edges=edges, valid=valid), valid)
    assert (model.action_head(wrong, valid) - model.action_head(straight, valid)).abs().max() > 1e-4


def test_without_edges_the_action_is_another() -> None:
    config = tiny(16)
    model, given = make(config), inputs(config)
    tokens, valid = model.tokens(given)
    alone = EdgeListGraph(edges=torch.empty(2, 0, dtype=torch.int64), valid=valid)
    assert (model.action_head(model.backbone(tokens, alone, valid), valid) - model(given)).abs().max() > 1e-3


def test_every_input_matters_and_every_weight_learns() -> None:
    config = tiny(16)
    model, given = make(config), inputs(config, padding=0)
    for name in ("images", "language", "proprioception"):
        other = dataclasses.replace(given, **{name: torch.zeros_like(getattr(given, name))})
        assert (model(other) - model(given)).abs().max() > 1e-4, name
    model(given).square().sum().backward()
    silent = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not silent


def test_images_of_another_size_are_refused() -> None:
    config = tiny(16)
    wrong = dataclasses.replace(inputs(config), images=torch.zeros(2, 1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"expected images \[B, 2, 3, 64, 64\], got \[2, 1, 3, 64, 64\]"):
        make(config)(wrong)
