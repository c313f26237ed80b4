"""Statistics of actions and proprioception, and the scaling made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRIPPER = 6
"""Entry of an action that is a command, not a size: it is left as it is."""
PROPRIO_LIMIT = 3.0
"""Scaled proprioception is clipped to ± this: a pose far outside the demonstrations must not blow up the network."""


class StatisticsError(ValueError):
    """Statistics are missing, or not those of what they are applied to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Of one kind of vector, entry by entry, over every step of the training demonstrations. Quantiles are exact."""

    count: int
    """Vectors they were computed from."""
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    q01: tuple[float, ...]
    """1 % quantile."""
    q99: tuple[float, ...]
    """99 % quantile."""

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]]) -> Statistics:
        """Statistics of vectors (N, D).

        Raises:
            StatisticsError: there are none, or one is not finite.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
            raise StatisticsError(f"expected finite vectors (N, D), got {values.shape} with NaN or infinity, or none")
        q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
        return cls(
            count=len(values),
            minimum=_tuple(values.min(axis=0)),
            maximum=_tuple(values.max(axis=0)),
            mean=_tuple(values.mean(axis=0)),
            std=_tuple(values.std(axis=0)),
            q01=_tuple(q01),
            q99=_tuple(q99),
        )

    @classmethod
    def from_plain(cls, plain: dict[str, Any], name: str, width: int) -> Statistics:
        """Read back what `dataclasses.asdict` gave.

        Raises:
            StatisticsError: an entry is missing, of another width, or not finite.
        """
        values: dict[str, Any] = {}
        for key in cls.__slots__:
            if key not in plain:
                raise StatisticsError(
                    f"the statistics of {name} lack {key!r}; they have {', '.join(plain) or 'nothing'}"
                )
            if key == "count":
                values[key] = int(plain[key])
                continue
            values[key] = tuple(float(value) for value in plain[key])
            if len(values[key]) != width or not np.isfinite(values[key]).all():
                raise StatisticsError(
                    f"statistics of {name}: expected {width} finite entries in {key!r}, got {plain[key]}"
                )
        return cls(**values)


class Scaling:
    """Maps the 1 % … 99 % range of each entry to [-1, 1] and back; what never changes is only centred.

    Args:
        statistics: of the vectors.
        keep: entries left as they are.
        limit: scaled values are clipped to ± this.
    """

    def __init__(self, statistics: Statistics, *, keep: tuple[int, ...] = (), limit: float = float("inf")) -> None:
        low, high = np.array(statistics.q01), np.array(statistics.q99)
        centre, half = (high + low) / 2, (high - low) / 2
        half[half < 1e-6] = 1.0
        for entry in keep:
            centre[entry], half[entry] = 0.0, 1.0
        self._centre = torch.tensor(centre, dtype=torch.float32)
        self._half = torch.tensor(half, dtype=torch.float32)
        self._limit = limit

    def to(self, device: torch.device | str) -> Self:
        """Move to a device; returns itself."""
        self._centre, self._half = self._centre.to(device), self._half.to(device)
        return self

    def scale(self, values: Tensor) -> Tensor:
        """[..., D] → [..., D] float32"""
        return ((values - self._centre) / self._half).clamp(-self._limit, self._limit)

    def restore(self, scaled: Tensor) -> Tensor:
        """[..., D] → [..., D]: the inverse, where nothing was clipped."""
        return scaled * self._half + self._centre


def action_scaling(statistics: Statistics) -> Scaling:
    """The scaling of actions (…, 7)."""
    return Scaling(statistics, keep=(GRIPPER,))


def proprio_scaling(statistics: Statistics) -> Scaling:
    """The scaling of proprioception (…, 8)."""
    return Scaling(statistics, limit=PROPRIO_LIMIT)


def _tuple(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
