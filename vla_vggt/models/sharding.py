"""Weights divided among processes (FSDP2, `torch.distributed.fsdp.fully_shard`), and how to treat them like any others.

A divided tensor is a `DTensor`, of which every process holds a part. Nothing here asks which kind a tensor is of but this module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def all_processes(device: torch.device) -> DeviceMesh:
    """The mesh of all processes, in one row."""
    return init_device_mesh(device.type, (dist.get_world_size(),))


UNIT = 2**26
"""Weights that are gathered together, at least, where there are so many. Every unit costs each process some milliseconds per step."""


def shard(module: nn.Module, kinds: Collection[str], mesh: DeviceMesh, least: int = UNIT) -> None:
    """Divide a module's weights: units of successive modules in it of one of these classes, and one for the rest.

    They are gathered when they are needed, one unit at a time; gradients are averaged over the processes, and each keeps its part,
    for which alone it needs optimiser state. Every process must compute whatever one of them computes.

    Args:
        kinds: names of classes.
        least: weights of a unit, where there are so many.
    """
    for unit in units([part for part in module.modules() if type(part).__name__ in kinds], least):
        fully_shard(unit, mesh=mesh)
    fully_shard(module, mesh=mesh)


def units(layers: Iterable[nn.Module], least: int) -> list[list[nn.Module]]:
    """Successive layers together until they have `least` weights: those that are trained, those that are not.

    FSDP2 gathers a unit for the backward pass where its last layer's output gets a gradient: a layer that nothing flows back into
    must not be the last of a unit that is trained.
    """
    found: list[list[nn.Module]] = []
    weights = 0
    before: bool | None = None
    for layer in layers:
        trained = any(parameter.requires_grad for parameter in layer.parameters())
        if weights >= least or trained is not before:
            found.append([])
            weights = 0
        found[-1].append(layer)
        weights += sum(parameter.numel() for parameter in layer.parameters())
        before = trained
    return found


def is_shard(tensor: Tensor) -> bool:
    """Whether a process holds only a part of it."""
    return isinstance(tensor, DTensor)


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """What this process holds of it, without its history; changes to it are changes of the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(part: Tensor, tensor: Tensor) -> Tensor:
    """What this process holds of something that is divided as `tensor` is, as such a thing; `part` itself where nothing is."""
    if not isinstance(tensor, DTensor):
        return part
    mesh, placements = tensor.device_mesh, tensor.placements
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())


def like(value: Tensor, tensor: Tensor) -> Tensor:
    """`value`, whole and the same in every process, where `tensor` is and divided as it is."""
    placed = value.to(tensor.device)
    return distribute_tensor(placed, tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else placed


@torch.no_grad()
def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors by name, those that were divided on the CPU, in the main process; nothing in the others.

    Every process must call it.
    """
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    kept = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            whole = tensor.full_tensor()  # one at a time: a device need not hold them all
            if is_main:
                kept[name] = whole.cpu()
        elif is_main:
            kept[name] = tensor.detach()
    return kept
