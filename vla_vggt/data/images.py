"""Images on the device, in batch: augmentation, resizing, scaling. The policy and the trainer prepare them alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in a pixel's brightness (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationConfig:
    """How far images are changed while training. Every image of every camera draws its own."""

    shift: float
    """Largest shift, as a part of the image's side; the border is repeated (DrQ, arXiv 2004.13649)."""
    brightness: float
    """Pixels are multiplied by 1 ± at most this."""
    contrast: float
    """The distance from the mean is multiplied by 1 ± at most this."""
    saturation: float
    """The distance from grey is multiplied by 1 ± at most this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AugmentationDraw:
    """One draw for every image of a batch."""

    shift_px: Tensor
    """[B, C, 2] int64: rows, columns."""
    factors: Tensor
    """[B, C, 3] float32: brightness, contrast, saturation."""

    def to(self, device: torch.device) -> Self:
        """A copy on a device."""
        return type(self)(
            shift_px=self.shift_px.to(device, non_blocking=True), factors=self.factors.to(device, non_blocking=True)
        )

    def part(self, first: int, end: int) -> Self:
        """The draws of some images: [first, end) of the batch."""
        return type(self)(shift_px=self.shift_px[first:end], factors=self.factors[first:end])


def draw_augmentation(
    config: AugmentationConfig, *, batch: int, cameras: int, image_px: int, seed: int, step: int
) -> AugmentationDraw:
    """Draw for step `step`: a function of the arguments alone, the same on every device."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, step]))
    most = round(config.shift * image_px)
    spread = np.array([config.brightness, config.contrast, config.saturation])
    factors = 1.0 + spread * generator.uniform(-1.0, 1.0, (batch, cameras, 3))
    return AugmentationDraw(
        shift_px=torch.from_numpy(generator.integers(-most, most + 1, (batch, cameras, 2))),
        factors=torch.from_numpy(factors.astype(np.float32)),
    )


def prepare_images(images: Tensor, image_px: int) -> Tensor:
    """uint8 [B, C, H, W, 3] → float32 [B, C, 3, image_px, image_px] in [-1, 1], resized with antialiasing."""
    return _resize(_unit(images), image_px) * 2.0 - 1.0


def augment_images(images: Tensor, draw: AugmentationDraw, image_px: int) -> Tensor:
    """`prepare_images` of images that are shifted first and then change colour."""
    return _resize(_recolour(_unit(_shift(images, draw.shift_px)), draw.factors), image_px) * 2.0 - 1.0


def reduce_images(images: Tensor, recorded_px: int) -> Tensor:
    """What a camera of `recorded_px` would have seen: uint8 [B, C, H, W, 3] → the same at `recorded_px`, never enlarged.

    A policy trained on 128² demonstrations has not seen the detail of a 256² rendering.
    """
    if images.shape[2] <= recorded_px:
        return images
    flat = images.flatten(0, 1).permute(0, 3, 1, 2).float()  # [B · C, 3, H, W]
    small = functional.interpolate(
        flat, (recorded_px, recorded_px), mode="area"
    )  # each pixel the mean of what it covers
    return small.round().to(torch.uint8).permute(0, 2, 3, 1).reshape(*images.shape[:2], recorded_px, recorded_px, 3)


def _unit(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W, 3] → float32 [B, C, 3, H, W] in [0, 1]"""
    return images.permute(0, 1, 4, 2, 3).float() / 255.0


def _resize(images: Tensor, image_px: int) -> Tensor:
    """[B, C, 3, H, W] → [B, C, 3, image_px, image_px]"""
    if images.shape[3:] == (image_px, image_px):
        return images
    flat = images.flatten(0, 1)  # [B · C, 3, H, W]
    resized = functional.interpolate(flat, (image_px, image_px), mode="bilinear", antialias=True)
    return resized.reshape(*images.shape[:3], image_px, image_px)


def _shift(images: Tensor, shift_px: Tensor) -> Tensor:
    """[B, C, H, W, 3] → the same, each image moved by its own (rows, columns)."""
    batch, cameras, height, width = images.shape[:4]
    device = images.device
    rows = (torch.arange(height, device=device) + shift_px[..., :1]).clamp(0, height - 1)  # [B, C, H]
    columns = (torch.arange(width, device=device) + shift_px[..., 1:]).clamp(0, width - 1)  # [B, C, W]
    sample = torch.arange(batch, device=device)[:, None, None, None]
    camera = torch.arange(cameras, device=device)[None, :, None, None]
    return images[sample, camera, rows[..., :, None], columns[..., None, :]]


def _recolour(images: Tensor, factors: Tensor) -> Tensor:
    """[B, C, 3, H, W] in [0, 1] → the same, brightness, contrast and saturation changed in this order."""
    brightness, contrast, saturation = factors[..., None, None, None].unbind(2)  # each [B, C, 1, 1, 1]
    images = images * brightness
    mean = images.mean(dim=(2, 3, 4), keepdim=True)  # [B, C, 1, 1, 1]
    images = mean + (images - mean) * contrast
    luma = images.new_tensor(LUMA)[:, None, None]  # [3, 1, 1]
    grey = (images * luma).sum(dim=2, keepdim=True)  # [B, C, 1, H, W]
    return (grey + (images - grey) * saturation).clamp(0.0, 1.0)
