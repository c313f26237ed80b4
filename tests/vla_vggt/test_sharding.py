"""Which layers' weights are gathered together, and that it changes no gradient."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from vla_vggt.models.sharding import all_processes, gathered, is_shard, shard, units
from vla_vggt.training.processes import Processes


def layers(*weights: int) -> list[nn.Module]:
    return [nn.Linear(count, 1, bias=False) for count in weights]


def test_layers_are_taken_together_until_they_have_enough_weights() -> None:
    six = layers(4, 4, 4, 4, 4, 4)
    assert units(six, least=4) == [[layer] for layer in six]
    assert units(six, least=8) == [six[:2], six[2:4], six[4:]]
    assert units(six, least=9) == [six[:3], six[3:]]
    assert units(six, least=100) == [six]


def test_a_large_layer_is_a_unit_and_the_last_unit_may_be_small() -> None:
    four = layers(9, 2, 9, 1)
    assert units(four, least=8) == [four[:1], four[1:3], four[3:]]
    assert units([], least=8) == []


def test_what_is_trained_is_apart_from_what_is_not() -> None:
    five = layers(4, 4, 4, 4, 4)
    for layer in five[3:]:
        layer.requires_grad_(False)
    assert units(five, least=100) == [five[:3], five[3:]]
    assert units(five, least=8) == [five[:2], five[2:3], five[3:]]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.matrix(x))


class Network(nn.Module):
    """Four layers, of which the one before last gives the output, as `--language-layer -2` has it, and a matrix before them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 6)
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.layers[-1].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        states = [self.first(x)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states[-2]


def _compare(rank: int, meeting: str, least: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    processes = Processes(rank=rank, local_rank=rank, count=2)
    torch.manual_seed(0)
    whole = Network()
    divided = copy.deepcopy(whole)
    shard(divided, {"Layer"}, all_processes(torch.device("cpu")), least)
    assert all(map(is_shard, divided.parameters()))
    x = torch.randn(2, 5, 3)
    for _ in range(2):  # what was gathered is freed, and gathered again
        whole(x).square().mean().backward()
        divided(x[rank]).square().mean().backward()
    expected = {name: parameter.grad for name, parameter in whole.named_parameters()}
    found = {name: parameter.grad for name, parameter in divided.named_parameters()}
    trained = [name for name, gradient in expected.items() if gradient is not None]
    assert len(trained) == 8
    assert [name for name, gradient in found.items() if gradient is not None] == trained
    whole_again = gathered({name: gradient for name, gradient in found.items() if gradient is not None})
    if rank == 0:
        for name in trained:
            torch.testing.assert_close(whole_again[name], expected[name], rtol=1e-5, atol=1e-6)
    processes.part()


@pytest.mark.parametrize("least", [1, 84, 10_000], ids=["one layer", "two layers", "all that are trained"])
def test_two_processes_get_the_gradients_of_one(tmp_path: Path, least: int) -> None:
    mp.spawn(_compare, (str(tmp_path / "meeting"), least), nprocs=2)
