from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from results.statistics import wilson


@pytest.mark.parametrize(("successes", "episodes"), [(0, 10), (10, 10), (1, 10), (7, 10), (48, 50), (480, 500), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipys(successes: int, episodes: int, confidence: float) -> None:
    expected = binomtest(successes, episodes).proportion_ci(confidence, method="wilson")
    ours = wilson(successes, episodes, confidence)
    assert ours.low == pytest.approx(expected.low, abs=1e-12)
    assert ours.high == pytest.approx(expected.high, abs=1e-12)
    assert ours.rate == successes / episodes


def test_wilson_equals_a_published_value() -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, table I: 81 of 263, 0.2553 to 0.3662."""
    interval = wilson(81, 263)
    assert round(interval.low, 4) == 0.2553
    assert round(interval.high, 4) == 0.3662


def test_no_episode_has_no_rate() -> None:
    assert math.isnan(wilson(0, 0).rate)


@pytest.mark.parametrize(
    ("successes", "episodes", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)]
)
def test_nonsense_is_refused(successes: int, episodes: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        wilson(successes, episodes, confidence)
