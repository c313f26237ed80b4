"""Patch embedding by a few convolutions instead of one matrix (arXiv 2106.14881: early convolutions help transformers see better).

A matrix over 16×16 pixels must learn every edge once per place in the patch; convolutions learn it once.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_vggt.models.components.norm import RMSNorm

FIRST_STRIDE = 4
"""Pixels that the first convolution (7×7, overlapping) takes together; each further one (3×3) halves the grid."""


class ConvolutionalStem(nn.Module):
    """Images → features of patches.

    Args:
        width: features per patch, d.
        patch_px: pixels along a patch, p: 4 times a power of two.

    Raises:
        ValueError: another `patch_px`, or a width that cannot be halved often enough.
    """

    def __init__(self, *, width: int, patch_px: int) -> None:
        super().__init__()
        halvings = round(math.log2(patch_px / FIRST_STRIDE)) if patch_px >= FIRST_STRIDE else -1
        if halvings < 0 or FIRST_STRIDE * 2**halvings != patch_px or width % 2**halvings:
            raise ValueError(
                f"a convolutional stem needs patch_px of 4, 8, 16, … and a width that halves as often, got {patch_px} and {width}"
            )
        widths = [width // 2 ** (halvings - step) for step in range(halvings + 1)]
        first = nn.Conv2d(3, widths[0], 7, stride=FIRST_STRIDE, padding=3)
        halving = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)]
        self.convolutions = nn.ModuleList([first, *halving])
        self.norms = nn.ModuleList([RMSNorm(features) for features in widths])
        self.project = nn.Linear(width, width)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, g·p, g·p] → [N, g², d], row by row"""
        features = images.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = convolution(features).permute(0, 2, 3, 1)  # [N, h, w, features]
            features = functional.gelu(norm(features), approximate="tanh").permute(0, 3, 1, 2)
        patches: Tensor = self.project(features.permute(0, 2, 3, 1).flatten(1, 2))  # [N, g², d]
        return patches
