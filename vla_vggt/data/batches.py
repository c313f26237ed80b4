"""Samples by index → batches on the device.

They come from the memory-mapped cache, copies running ahead, or from the device's own memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.demonstrations.decoded_set import DemonstrationSet
from vla_vggt.data.windows import Windows

AHEAD = 3
"""Batches being gathered while one is computed with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """B samples, as recorded: nothing is scaled yet."""

    images: Tensor
    """uint8 [B, C, H, W, 3]"""
    proprio: Tensor
    """float32 [B, 8]"""
    actions: Tensor
    """float32 [B, H, 7]; beyond the demonstration's end the last action repeated"""
    valid: Tensor
    """bool [B, H]: False beyond the demonstration's end"""
    instructions: Tensor
    """int64 [B]: index into the set's instructions"""

    def to(self, device: torch.device) -> Batch:
        """The same on a device; the copy is asynchronous from pinned memory."""
        return Batch(
            images=self.images.to(device, non_blocking=True),
            proprio=self.proprio.to(device, non_blocking=True),
            actions=self.actions.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            instructions=self.instructions.to(device, non_blocking=True),
        )


class Batches:
    """Makes batches of some windows of a set.

    Args:
        demonstrations: the set.
        windows: the samples.
        chunk_steps: H.
        device: where batches are wanted.
        data_on_device: keep every image in the device's memory.

    Raises:
        MemoryError: the images do not fit into the device's memory.
    """

    def __init__(
        self,
        demonstrations: DemonstrationSet,
        windows: Windows,
        *,
        chunk_steps: int,
        device: torch.device,
        data_on_device: bool,
    ) -> None:
        self._device, self._chunk_steps = device, chunk_steps
        self._on_device = data_on_device or device.type == "cpu"
        home = device if self._on_device else torch.device("cpu")
        self._images = [torch.from_numpy(part) for part in demonstrations.image_parts]
        if data_on_device and device.type != "cpu":
            self._images = [_whole_on(self._images, device)]
        ends = torch.tensor([len(part) for part in self._images], device=home).cumsum(0)
        self._starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        self._proprio = torch.from_numpy(demonstrations.proprio).to(home)
        self._actions = torch.from_numpy(demonstrations.actions).float().to(home)
        self._steps = torch.from_numpy(windows.steps).to(home)
        self._places = torch.from_numpy(windows.images).to(home)
        self._ends = torch.from_numpy(windows.ends).to(home)
        self._instructions = torch.from_numpy(windows.instructions).to(home)
        self._pin = device.type == "cuda" and not self._on_device

    def get(self, indices: NDArray[np.int64]) -> Batch:
        """The samples of these indices, on the device."""
        return self._gather(indices).to(self._device)

    def stream(self, orders: Iterable[NDArray[np.int64]]) -> Iterator[Batch]:
        """A batch for each of `orders`, in order; the next ones are gathered while one is used."""
        if self._on_device:
            yield from map(self.get, orders)
            return
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="batches") as pool:
            for indices in orders:
                waiting.append(pool.submit(self._gather, indices))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result().to(self._device)
            while waiting:
                yield waiting.popleft().result().to(self._device)

    def _gather(self, indices: NDArray[np.int64]) -> Batch:
        chosen = torch.from_numpy(indices).to(self._steps.device)
        first, end = self._steps[chosen], self._ends[chosen]  # [B]
        steps = first[:, None] + torch.arange(self._chunk_steps, device=first.device)  # [B, H]
        batch = Batch(
            images=self._rows(self._places[chosen]),
            proprio=self._proprio[first],
            actions=self._actions[torch.minimum(steps, end[:, None] - 1)],  # [B, H, 7]
            valid=steps < end[:, None],
            instructions=self._instructions[chosen],
        )
        return batch if not self._pin else _pinned(batch)

    def _rows(self, rows: Tensor) -> Tensor:
        """Images of these steps."""
        first = self._images[0]
        out = torch.empty((len(rows), *first.shape[1:]), dtype=torch.uint8, device=first.device, pin_memory=self._pin)
        if len(self._images) == 1:
            return torch.index_select(first, 0, rows, out=out)
        parts = torch.searchsorted(self._starts, rows, right=True) - 1
        places = rows - self._starts[parts]
        for slot, (part, place) in enumerate(zip(parts.tolist(), places.tolist(), strict=True)):
            out[slot] = self._images[part][place]  # a plain copy: indexing with masks takes three times as long
        return out


def _pinned(batch: Batch) -> Batch:
    """The small tensors of a batch, moved to pinned memory; the images are there."""
    return Batch(
        images=batch.images,
        proprio=batch.proprio.pin_memory(),
        actions=batch.actions.pin_memory(),
        valid=batch.valid.pin_memory(),
        instructions=batch.instructions.pin_memory(),
    )


def _whole_on(parts: list[Tensor], device: torch.device) -> Tensor:
    """All parts, one after the other, in the device's memory."""
    free, _ = torch.cuda.mem_get_info(device)
    wanted = sum(part.nbytes for part in parts)
    if wanted > free:
        raise MemoryError(
            f"--data-on-device: the images take {wanted / 2**30:.1f} GiB, {device} has {free / 2**30:.1f} GiB free. "
            "Leave the flag out: batches are then copied while the GPU computes."
        )
    whole = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=torch.uint8, device=device)
    start = 0
    for part in parts:
        for piece in torch.split(part, 4096):  # a memory map is not copied in one piece through pinned memory
            whole[start : start + len(piece)] = piece.to(device)
            start += len(piece)
    return whole
