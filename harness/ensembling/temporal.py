"""Temporal ensembling: blend what several chunks say about the same step (ACT, arXiv 2304.13705, algorithm 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.interface import ActionChunk


class TemporalEnsemble:
    """a_t = Σ_i w_i A_i[t] / Σ_i w_i, w_i = exp(−decay · i), over all chunks covering t, i = 0 the oldest.

    The gripper entry is the sign of its blend: between open and closed there is no middle.

    Args:
        decay: how fast newer chunks lose weight; 0 is a plain mean.
        query_every: control steps between queries; a step that no chunk covers asks for one earlier.
    """

    def __init__(self, *, decay: float, query_every: int) -> None:
        self._decay = decay
        self._query_every = query_every
        self._next_query = 0
        self._chunks: list[tuple[int, NDArray[np.float64]]] = []
        """(first step, actions), oldest first; only chunks that can still cover a step."""

    def wants_chunk(self, step: int) -> bool:
        return step >= self._next_query or not self._covering(step)

    def push(self, chunk: ActionChunk, step: int) -> None:
        self._chunks = [*self._covering(step), (step, chunk.actions)]
        self._next_query = step + self._query_every

    def action(self, step: int) -> NDArray[np.float64]:
        covering = self._covering(step)
        assert covering, f"no chunk covers step {step}"
        candidates = np.stack([actions[step - start] for start, actions in covering])  # (chunks, 7)
        exponents = -self._decay * np.arange(len(candidates))
        weights = np.exp(exponents - exponents.max())  # normalised below; a negative decay must not overflow
        blend = (weights[:, None] * candidates).sum(axis=0) / weights.sum()  # (7,)
        blend[-1] = np.sign(blend[-1])
        return blend

    def _covering(self, step: int) -> list[tuple[int, NDArray[np.float64]]]:
        return [(start, actions) for start, actions in self._chunks if start <= step < start + len(actions)]
