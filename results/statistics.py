"""Confidence intervals for success rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A rate and its confidence interval, all in [0, 1]; nan where there is no episode."""

    rate: float
    low: float
    high: float


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a binomial proportion.

    Source: Wilson 1927, JASA 22(158), 209-212; without continuity correction.

    Raises:
        ValueError: the counts or the confidence make no sense.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"expected 0 <= successes <= episodes, got {successes} of {episodes}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    if episodes == 0:
        return Interval(rate=math.nan, low=math.nan, high=math.nan)
    z = float(norm.ppf(0.5 + confidence / 2))
    rate = successes / episodes
    shrunk = (rate + z * z / (2 * episodes)) / (1 + z * z / episodes)
    half = z / (1 + z * z / episodes) * math.sqrt(rate * (1 - rate) / episodes + z * z / (4 * episodes * episodes))
    low = 0.0 if successes == 0 else max(0.0, shrunk - half)
    high = 1.0 if successes == episodes else min(1.0, shrunk + half)
    return Interval(rate=rate, low=low, high=high)
