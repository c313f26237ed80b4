"""The banded graph is the edge list's, and the edge list is the one in the figure."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from vla_vggt.models.components.token_graph import EdgeListGraph, TokenLayout, banded_graph, edge_list

LAYOUT = TokenLayout(language_tokens=5, cameras=2, grid=4, state_tokens=1)


def masks(layout: TokenLayout) -> torch.Tensor:
    """[4, T]: no padding, some, all of the language but one token, all of it."""
    valid = torch.ones(4, layout.total, dtype=torch.bool)
    for row, padding in enumerate((0, 2, layout.language_tokens - 1, layout.language_tokens)):
        valid[row, :padding] = False
    return valid


@pytest.mark.parametrize("neighbours", [0, 4, 8])
@pytest.mark.parametrize("grid", [1, 2, 3, 4, 14])
@pytest.mark.parametrize("state_tokens", [0, 1])
def test_bands_equal_edges(neighbours: Literal[0, 4, 8], grid: int, state_tokens: int) -> None:
    layout = TokenLayout(language_tokens=5, cameras=2, grid=grid, state_tokens=state_tokens)
    valid = masks(layout)
    tokens = torch.randn(4, layout.total, 6, generator=torch.Generator().manual_seed(0))
    reference = EdgeListGraph(edges=edge_list(layout, neighbours), valid=valid)
    torch.testing.assert_close(
        banded_graph(layout, neighbours, valid).propagate(tokens), reference.propagate(tokens), atol=1e-6, rtol=1e-6
    )


def test_gradients_of_bands_equal_those_of_edges() -> None:
    valid = masks(LAYOUT)
    tokens = torch.randn(4, LAYOUT.total, 6, generator=torch.Generator().manual_seed(0))
    gradients = []
    for graph in (banded_graph(LAYOUT, 8, valid), EdgeListGraph(edges=edge_list(LAYOUT, 8), valid=valid)):
        leaf = tokens.clone().requires_grad_()
        graph.propagate(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-5)


def test_the_edges_are_a_chain_and_two_grids() -> None:
    pairs = set(map(tuple, edge_list(LAYOUT, 4).T.tolist()))
    chain = {(a, b) for a in range(5) for b in range(5) if abs(a - b) == 1}
    grids = set()
    for first in (5, 5 + 16):
        place = {first + 4 * row + column: (row, column) for row in range(4) for column in range(4)}
        distance = {
            (a, b): (abs(place[a][0] - place[b][0]), abs(place[a][1] - place[b][1])) for a in place for b in place
        }
        grids |= {pair for pair, (down, right) in distance.items() if down + right == 1}
    assert pairs == chain | grids
    assert edge_list(LAYOUT, 4).shape[1] == len(pairs) == 2 * 4 + 2 * 2 * 24


def test_eight_neighbours_add_the_diagonals() -> None:
    four = set(map(tuple, edge_list(LAYOUT, 4).T.tolist()))
    eight = set(map(tuple, edge_list(LAYOUT, 8).T.tolist()))
    assert four < eight
    assert len(eight - four) == 2 * 2 * 2 * 9


def test_without_neighbours_a_token_stays_what_it_is() -> None:
    valid = masks(LAYOUT)
    tokens = torch.randn(4, LAYOUT.total, 6)
    torch.testing.assert_close(
        banded_graph(LAYOUT, 0, valid).propagate(tokens), tokens * valid[..., None], atol=0, rtol=0
    )


def test_padding_gives_nothing_and_gets_nothing() -> None:
    valid = masks(LAYOUT)[1:2]  # two tokens of padding
    tokens = torch.randn(1, LAYOUT.total, 6)
    other = tokens.clone()
    other[:, :2] = 100.0
    graph = banded_graph(LAYOUT, 4, valid)
    torch.testing.assert_close(graph.propagate(tokens), graph.propagate(other), atol=0, rtol=0)
    assert (graph.propagate(tokens)[:, :2] == 0).all()


def test_the_weights_are_kipf_and_wellings() -> None:
    layout = TokenLayout(language_tokens=3, cameras=1, grid=1, state_tokens=0)
    graph = banded_graph(layout, 4, torch.ones(1, 4, dtype=torch.bool))
    dense = torch.stack([graph.propagate(torch.eye(4)[None, :, i : i + 1])[0, :, 0] for i in range(4)], dim=1)
    adjacency = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1.0]])
    scale = adjacency.sum(1).rsqrt()
    torch.testing.assert_close(dense, scale[:, None] * adjacency * scale)
