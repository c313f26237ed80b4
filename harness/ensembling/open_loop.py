"""Execute a chunk without looking, then query again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.interface import ActionChunk


class OpenLoop:
    """Executes the first `execute_steps` actions of each chunk (None, or a shorter chunk: all of it)."""

    def __init__(self, *, execute_steps: int | None) -> None:
        self._execute_steps = execute_steps
        self._chunk: NDArray[np.float64] = np.empty((0, 0))
        self._start = 0
        self._end = 0

    def wants_chunk(self, step: int) -> bool:
        return step >= self._end

    def push(self, chunk: ActionChunk, step: int) -> None:
        length = len(chunk.actions)
        self._chunk = chunk.actions
        self._start = step
        self._end = step + (length if self._execute_steps is None else min(length, self._execute_steps))

    def action(self, step: int) -> NDArray[np.float64]:
        assert self._start <= step < self._end, f"no chunk covers step {step}"
        return self._chunk[step - self._start]
