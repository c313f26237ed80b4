"""Images: what augmentation does, and that the policy and the trainer see the same."""

from __future__ import annotations

import numpy as np
import torch

from vla_vggt.data.images import (
    AugmentationConfig,
    AugmentationDraw,
    augment_images,
    draw_augmentation,
    prepare_images,
    reduce_images,
)

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 2, 20, 20, 3), dtype=np.uint8))
NO_SHIFT = torch.zeros(3, 2, 2, dtype=torch.int64)
NO_COLOUR = torch.ones(3, 2, 3)


def draw(shift: torch.Tensor = NO_SHIFT, factors: torch.Tensor = NO_COLOUR) -> AugmentationDraw:
    return AugmentationDraw(shift_px=shift, factors=factors)


def test_prepared_images_are_channels_first_in_minus_one_to_one() -> None:
    prepared = prepare_images(IMAGES, 20)
    torch.testing.assert_close(prepared, IMAGES.permute(0, 1, 4, 2, 3) / 127.5 - 1)
    assert prepare_images(IMAGES, 16).shape == (3, 2, 3, 16, 16)
    flat = torch.full((1, 1, 50, 50, 3), 128, dtype=torch.uint8)
    torch.testing.assert_close(prepare_images(flat, 224), torch.full((1, 1, 3, 224, 224), 128 / 127.5 - 1))


def test_nothing_drawn_changes_nothing() -> None:
    torch.testing.assert_close(augment_images(IMAGES, draw(), 16), prepare_images(IMAGES, 16), atol=1e-5, rtol=1e-5)


def test_a_shift_repeats_the_border_and_is_each_images_own() -> None:
    shift = NO_SHIFT.clone()
    shift[1, 0] = torch.tensor([2, -3])
    moved = augment_images(IMAGES, draw(shift), 20)
    plain = prepare_images(IMAGES, 20)
    torch.testing.assert_close(moved[0], plain[0])
    torch.testing.assert_close(moved[1, 1], plain[1, 1])
    torch.testing.assert_close(moved[1, 0, :, :18, 3:], plain[1, 0, :, 2:, :17])
    torch.testing.assert_close(moved[1, 0, :, 18:, 3:], plain[1, 0, :, 19:, :17].expand(3, 2, 17))


def test_colours() -> None:
    grey = prepare_images(IMAGES, 20) * 0.5 + 0.5  # in [0, 1]
    darker = NO_COLOUR.clone()
    darker[..., 0] = 0.5
    torch.testing.assert_close(
        augment_images(IMAGES, draw(factors=darker), 20), grey * 0.5 * 2 - 1, atol=1e-5, rtol=1e-5
    )
    colourless = NO_COLOUR.clone()
    colourless[..., 2] = 0.0
    result = augment_images(IMAGES, draw(factors=colourless), 20)
    torch.testing.assert_close(result[:, :, 0], result[:, :, 1])
    flat = NO_COLOUR.clone()
    flat[..., 1] = 0.0
    result = augment_images(IMAGES, draw(factors=flat), 20)
    torch.testing.assert_close(result[2, 1], (grey[2, 1].mean() * 2 - 1).expand(3, 20, 20), atol=1e-5, rtol=1e-5)


def test_a_draw_is_a_function_of_seed_and_step() -> None:
    config = AugmentationConfig(shift=0.1, brightness=0.2, contrast=0.0, saturation=0.3)

    def drawn(seed: int, step: int) -> AugmentationDraw:
        return draw_augmentation(config, batch=500, cameras=2, image_px=50, seed=seed, step=step)

    one = drawn(1, 2)
    assert torch.equal(one.shift_px, drawn(1, 2).shift_px)
    assert not torch.equal(one.shift_px, drawn(1, 3).shift_px)
    assert not torch.equal(one.factors, drawn(2, 2).factors)
    assert (one.shift_px.min(), one.shift_px.max()) == (-5, 5)
    assert (one.factors[..., 1] == 1).all()
    assert 0.8 <= one.factors[..., 0].min() < 0.82
    assert 1.28 < one.factors[..., 2].max() <= 1.3


def test_renderings_are_reduced_to_what_was_recorded() -> None:
    assert reduce_images(IMAGES, 20) is IMAGES
    assert reduce_images(IMAGES, 32) is IMAGES
    small = reduce_images(IMAGES, 10)
    assert (small.shape, small.dtype) == ((3, 2, 10, 10, 3), torch.uint8)
    assert (small.float().mean() - IMAGES.float().mean()).abs() < 1.5
