"""Images from workers to the parent without pickling: one slot per worker in anonymous shared memory.

The memory has no name, only an open file descriptor that workers inherit, so that nothing can be left
behind, however a process ends.
"""

from __future__ import annotations

import math
import mmap
import os

import numpy as np
from numpy.typing import NDArray


def create(num_bytes: int) -> int:
    """A file descriptor of `num_bytes` of anonymous shared memory.

    Raises:
        OSError: there is no room.
    """
    descriptor = os.memfd_create("vla-eval-images")
    os.ftruncate(descriptor, max(num_bytes, 1))
    return descriptor


class ImageSlots:
    """A view of the shared memory: uint8 (slots, cameras, H, W, 3).

    Args:
        descriptor: from `create`.
        shape: (slots, cameras, H, W, 3).
    """

    def __init__(self, descriptor: int, shape: tuple[int, ...]) -> None:
        self._memory = mmap.mmap(descriptor, max(math.prod(shape), 1))
        self.images: NDArray[np.uint8] = np.frombuffer(self._memory, dtype=np.uint8, count=math.prod(shape)).reshape(
            shape
        )

    @staticmethod
    def bytes_for(shape: tuple[int, ...]) -> int:
        """Memory needed for `shape`."""
        return math.prod(shape)
