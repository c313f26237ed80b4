"""Images → patch tokens with their places. No pretrained tower."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from vla_vggt.models.components.convolutional_stem import ConvolutionalStem


class VisionEncoder(nn.Module):
    """Patch embedding with a 2D position encoding: one learned vector per row plus one per column; one per camera.

    Args:
        width: features per token, d.
        patch_px: height and width of a patch, p.
        grid: patches along each side of an image, g; P = g².
        cameras: C.
        stem: what makes a token of a patch: one matrix, or a few convolutions that see across its border.
    """

    def __init__(
        self, *, width: int, patch_px: int, grid: int, cameras: int, stem: Literal["patches", "convolutions"]
    ) -> None:
        super().__init__()
        self.patch_px = patch_px
        self.grid = grid
        self.embed = nn.Linear(3 * patch_px**2, width) if stem == "patches" else None
        self.stem = ConvolutionalStem(width=width, patch_px=patch_px) if stem == "convolutions" else None
        self.rows = nn.Parameter(torch.empty(grid, width))
        self.columns = nn.Parameter(torch.empty(grid, width))
        self.cameras = nn.Parameter(torch.empty(cameras, width))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of every camera, camera by camera, each image row by row.

        Args:
            images: [B, C, 3, g·p, g·p] float, RGB, about in [-1, 1].

        Returns:
            tokens [B, C · P, d] and the patches' positions [P, 2] int64 as (row, column), which hold for every camera.

        Raises:
            ValueError: images of another size or number.
        """
        side, cameras = self.grid * self.patch_px, self.cameras.shape[0]
        if images.shape[1:] != (cameras, 3, side, side):
            raise ValueError(f"expected images [B, {cameras}, 3, {side}, {side}], got {list(images.shape)}")
        place = (self.rows[:, None] + self.columns[None, :]).flatten(0, 1)  # [P, d]
        embedded = self._embed(images)  # [B, C, P, d]
        tokens = embedded + (place + self.cameras[:, None]).to(embedded.dtype)  # [B, C, P, d]
        return tokens.flatten(1, 2), self.patch_positions()

    def _embed(self, images: Tensor) -> Tensor:
        """[B, C, 3, g·p, g·p] → [B, C, P, d]"""
        cameras, grid, px = images.shape[1], self.grid, self.patch_px
        if self.stem is not None:
            tokens = cast(Tensor, self.stem(images.flatten(0, 1)))  # [B · C, P, d]
            return tokens.reshape(-1, cameras, *tokens.shape[1:])
        assert self.embed is not None
        patches = images.reshape(-1, cameras, 3, grid, px, grid, px)  # [B, C, 3, g, p, g, p]
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)  # [B, C, P, 3 p²]
        return cast(Tensor, self.embed(patches))

    def patch_positions(self) -> Tensor:
        """[P, 2] int64: (row, column) of each patch, in the tokens' order."""
        steps = torch.arange(self.grid, device=self.rows.device)
        return torch.cartesian_prod(steps, steps)
