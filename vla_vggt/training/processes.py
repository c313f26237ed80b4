"""The processes that train one model together: one, or as many as `torchrun` started, on one machine or several."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vla_vggt.device import choose_device

PATIENCE = datetime.timedelta(hours=2)
"""How long a process waits for the others: while one decodes a large set, say."""

GLOO_FREES = 0.5
"""Seconds for gloo's threads to free the tensors of their last work, which takes them microseconds once they run.

FSDP2 keeps the group, and so its threads, for as long as the process lives. To free a tensor that Python has seen, a thread must hold
the interpreter. If that is shutting down already, Python (before 3.14) ends the thread, and as it is in a destructor, C++ ends the
process: "terminate called without an active exception".
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process among the others."""

    rank: int = 0
    local_rank: int = 0
    """Among those on this machine."""
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this one writes the log and the checkpoints."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Where this process computes; see `choose_device`."""
        device = choose_device(name)
        return torch.device("cuda", self.local_rank) if device.type == "cuda" and self.count > 1 else device

    @contextlib.contextmanager
    def first_on_machine(self) -> Iterator[None]:
        """Let one process of each machine go first, so that the others find in the cache what it makes.

        If the first one fails, so do all.
        """
        if self.count == 1:
            yield
            return
        if self.local_rank == 0:
            try:
                yield
            finally:
                dist.barrier()
        else:
            dist.barrier()
            yield

    def share(self, value: Any) -> Any:
        """The main process's value, in every process."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """A module whose backward pass averages gradients over all processes."""
        if self.count == 1:
            return module
        return DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )

    def part(self) -> None:
        """The common work is done: nobody waits for anybody any more."""
        if dist.is_initialized():
            on_cpu = dist.get_backend() == "gloo"
            dist.barrier()
            dist.destroy_process_group()
            if on_cpu:
                time.sleep(GLOO_FREES)


def without_averaging(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Within, a wrapped module's gradients add up in each process alone."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else contextlib.nullcontext()


def join_processes(device: str) -> Processes:
    """Meet the other processes `torchrun` started; alone without it.

    Args:
        device: auto, cuda or cpu. With GPUs, each process of a machine takes the one of its local rank.

    Raises:
        ValueError: there is no GPU, or fewer than processes on this machine.
    """
    chosen = choose_device(device)
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Processes()
    processes = Processes(
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        count=int(os.environ["WORLD_SIZE"]),
    )
    if chosen.type == "cuda":
        gpus = torch.cuda.device_count()
        if processes.local_rank >= gpus:
            raise ValueError(
                f"torchrun started process {processes.local_rank} on this machine, which has {gpus} GPUs: "
                f"use --nproc-per-node {gpus}"
            )
        torch.cuda.set_device(processes.local_rank)
    if processes.count > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    return processes
