"""The graph over a sample's tokens: a chain over language, a grid over each image, no edge across modalities.

Two forms of one thing. `edge_list` spells the edges out, pair by pair, and `EdgeListGraph` sums over them: slow, obvious, and free to
take the tokens in any order. `BandedGraph` knows that in canonical order ([language | images row by row | state]) an
edge joins tokens at a few fixed distances (±1, ± the grid's columns), so that the adjacency matrix is a handful of diagonals,
and the sum over neighbours as many shifted multiply-adds. A test holds the second to the first.

Both compute the propagation of Kipf and Welling (arXiv 1609.02907, eq. 2): Â = D^-1/2 (A + I) D^-1/2, D the degrees of A + I.
Padding is no node: it has no edges, and its row of Â is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

Neighbours = Literal[0, 4, 8]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """What stands where in a sample's sequence: [language | camera 0 | camera 1 … | state]."""

    language_tokens: int
    """L, padding included."""
    cameras: int
    """C"""
    grid: int
    """Patches along each side of an image; each image is read row by row."""
    state_tokens: int
    """S"""

    @property
    def total(self) -> int:
        """T"""
        return self.language_tokens + self.cameras * self.grid**2 + self.state_tokens


class TokenGraph(Protocol):
    """Propagates features along edges."""

    def propagate(self, tokens: Tensor) -> Tensor:
        """Â x for each sample: [B, T, d] → [B, T, d], in the dtype given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandedGraph:
    """Â as its non-zero diagonals."""

    offsets: tuple[int, ...]
    """Distances along the sequence, one per band; 0 is the token itself."""
    weights: Tensor
    """[B, T, bands]: the band's share of entry (t, t + offset) of Â; 0 where there is no edge."""

    def propagate(self, tokens: Tensor) -> Tensor:
        """[B, T, d] → [B, T, d]"""
        weights = self.weights.to(tokens.dtype).unbind(2)
        first, *others = zip(_shifted(tokens, self.offsets), weights, strict=True)
        mixed = first[0] * first[1][..., None]
        for shifted, weight in others:
            mixed = torch.addcmul(mixed, shifted, weight[..., None])
        return mixed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeListGraph:
    """Â as a list of edges: the reference. Tokens may stand in any order if the edges follow."""

    edges: Tensor
    """[2, E] int64: from, to; each undirected edge in both directions, no self-loops."""
    valid: Tensor
    """[B, T] bool: False for padding."""

    def propagate(self, tokens: Tensor) -> Tensor:
        """[B, T, d] → [B, T, d]"""
        rows = [_propagate_one(tokens[b].float(), self.edges, self.valid[b]) for b in range(tokens.shape[0])]
        return torch.stack(rows).to(tokens.dtype)


def directions(neighbours: Neighbours) -> list[tuple[int, int]]:
    """(down, right) steps on a grid, the undirected edges' both ways; none for 0 neighbours."""
    beside = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    diagonal = [(1, 1), (-1, -1), (1, -1), (-1, 1)]
    return (beside + diagonal)[:neighbours]


def band_offsets(grid: int, neighbours: Neighbours) -> tuple[int, ...]:
    """How far along the sequence each direction leads; the token itself first."""
    return (0, *(down * grid + right for down, right in directions(neighbours)))


def band_edges(layout: TokenLayout, neighbours: Neighbours, device: torch.device) -> Tensor:
    """[T, bands] bool: whether token t has an edge in the band's direction; its edge to itself included."""
    patch = torch.arange(layout.grid**2, device=device)
    row, column = patch // layout.grid, patch % layout.grid
    word = torch.arange(layout.language_tokens, device=device)
    bands = [torch.ones(layout.total, dtype=torch.bool, device=device)]
    for down, right in directions(neighbours):
        language = (word + right >= 0) & (word + right < layout.language_tokens) & (down == 0)  # a chain has no rows
        image = (row + down >= 0) & (row + down < layout.grid) & (column + right >= 0) & (column + right < layout.grid)
        state = torch.zeros(layout.state_tokens, dtype=torch.bool, device=device)
        bands.append(torch.cat([language, image.repeat(layout.cameras), state]))
    return torch.stack(bands, dim=1)


def banded_graph(
    layout: TokenLayout, neighbours: Neighbours, valid: Tensor, dtype: torch.dtype = torch.float32
) -> BandedGraph:
    """The graph of a batch.

    Args:
        valid: [B, T] bool: False for padding.
        dtype: of the weights, which are computed in float32: that of the tokens, so that no layer has to convert them.
    """
    offsets = band_offsets(layout.grid, neighbours)
    neighbour = torch.stack(_shifted(valid[..., None], offsets), dim=2)[..., 0]  # [B, T, bands]
    exists = band_edges(layout, neighbours, valid.device) & neighbour & valid[:, :, None]  # [B, T, bands]
    scale = torch.where(valid, exists.sum(dim=2).clamp(min=1).float().rsqrt(), 0.0)  # [B, T]
    neighbour_scale = torch.stack(_shifted(scale[..., None], offsets), dim=2)[..., 0]  # [B, T, bands]
    return BandedGraph(offsets=offsets, weights=(exists * scale[:, :, None] * neighbour_scale).to(dtype))


def edge_list(layout: TokenLayout, neighbours: Neighbours) -> Tensor:
    """[2, E] int64: every edge of the layout in both directions, found by walking over tokens one by one."""
    pairs = [(t, t + 1) for t in range(layout.language_tokens - 1)] if neighbours else []
    steps = [(0, 1), (1, 0), (1, 1), (1, -1)][: neighbours // 2]
    for camera in range(layout.cameras):
        first = layout.language_tokens + camera * layout.grid**2
        for row in range(layout.grid):
            for column in range(layout.grid):
                for down, right in steps:
                    if row + down < layout.grid and 0 <= column + right < layout.grid:
                        here = first + row * layout.grid + column
                        pairs.append((here, here + down * layout.grid + right))
    both = pairs + [(b, a) for a, b in pairs]
    return torch.tensor(both, dtype=torch.int64).reshape(-1, 2).T


def _shifted(tokens: Tensor, offsets: tuple[int, ...]) -> list[Tensor]:
    """[B, T, ...] → for each offset the same, entry t being token t + offset; 0 beyond the ends."""
    reach, total = max(offsets), tokens.shape[1]
    padded = functional.pad(tokens, (0, 0, reach, reach))  # [B, T + 2 reach, ...]
    return [padded[:, reach + offset : reach + offset + total] for offset in offsets]


def _propagate_one(tokens: Tensor, edges: Tensor, valid: Tensor) -> Tensor:
    """[T, d] → [T, d] for one sample, by the formula."""
    source, target = edges[:, valid[edges[0]] & valid[edges[1]]]  # edges that touch padding are none
    degree = valid.float().index_add(0, target, torch.ones_like(target, dtype=torch.float32))  # 1 for the self-loop
    scale = torch.where(valid, degree.clamp(min=1).rsqrt(), 0.0)  # [T]
    scaled = tokens * scale[:, None]
    return scaled.index_add(0, target, scaled[source]) * scale[:, None]
