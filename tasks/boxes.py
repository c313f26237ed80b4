"""Oriented boxes: the collision geometry that a policy with privileged state sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """Oriented boxes in world, one around each of n collision geometries."""

    centres: NDArray[np.float64]
    """(n, 3) [m]"""
    axes: NDArray[np.float64]
    """(n, 3, 3): the columns are a box's axes."""
    half_sizes: NDArray[np.float64]
    """(n, 3) [m]"""

    def corners(self) -> NDArray[np.float64]:
        """(n, 8, 3) [m]"""
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
        local = self.half_sizes[:, None, :] * signs  # (n, 8, 3)
        return self.centres[:, None, :] + np.einsum("nij,nkj->nki", self.axes, local)

    def distances(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """From each of `points` (p, 3) to the nearest box: (p,) [m], negative inside it; infinite without a box."""
        if not len(self.centres):
            return np.full(len(points), np.inf)
        local = np.einsum("nji,pnj->pni", self.axes, points[:, None, :] - self.centres)  # (p, n, 3)
        outside = np.abs(local) - self.half_sizes
        apart = np.linalg.norm(np.maximum(outside, 0.0), axis=-1)
        inside = np.minimum(outside.max(axis=-1), 0.0)
        return (apart + inside).min(axis=1)  # type: ignore[no-any-return]
