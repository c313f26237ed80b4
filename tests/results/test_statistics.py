"""Held to published values, to scipy and, in the margins, to counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from results.statistics import (
    PairedCounts,
    clustered_wilson,
    mcnemar,
    newcombe_paired,
    paired_design_effect,
    sample,
    stratified_wilson,
    wilson,
)


def strata(successes: list[int], episodes: list[int]) -> list[object]:
    return [sample([1] * s + [0] * (n - s), [1] * n) for s, n in zip(successes, episodes, strict=True)]


def counts(*table: int) -> PairedCounts:
    """The second's successes beside the first's: both, the second's only, the first's only, neither."""
    both, second_only, first_only, neither = table
    return PairedCounts(both=both, first_only=first_only, second_only=second_only, neither=neither)


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
    assert math.isnan(clustered_wilson(sample([], [])).low)
    assert math.isnan(stratified_wilson([sample([], [])], [1]).rate)
    assert math.isnan(newcombe_paired(counts(0, 0, 0, 0)).rate)


@pytest.mark.parametrize(
    ("successes", "episodes", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)]
)
def test_nonsense_is_refused(successes: int, episodes: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        wilson(successes, episodes, confidence)
    with pytest.raises(ValueError, match="expected 0 <= successes <= episodes in every cluster"):
        sample([3], [2])


@pytest.mark.parametrize(
    ("successes", "episodes", "weights", "confidence", "limits"),
    [
        ([12, 7, 5, 9, 8, 8], [22, 18, 17, 17, 14, 12], [1] * 6, 0.90, (0.4190436, 0.5789733)),
        ([11, 10, 4, 8, 9, 8], [15, 16, 10, 11, 15, 13], [1, 2, 3, 4, 5, 6], 0.95, (0.4867191, 0.7186381)),
    ],
)
def test_the_stratified_interval_equals_published_ones(
    successes: list[int], episodes: list[int], weights: list[float], confidence: float, limits: tuple[float, float]
) -> None:
    """What the tests of R's `tern` record for `prop_strat_wilson`, the second as equal to SAS's (their data drawn again with R)."""
    ours = stratified_wilson(strata(successes, episodes), weights, confidence)  # type: ignore[arg-type]
    assert (round(ours.low, 7), round(ours.high, 7)) == limits


def test_one_stratum_is_wilson_and_one_without_episodes_has_no_part() -> None:
    for successes in (0, 3, 10):
        alone = stratified_wilson(strata([successes], [10]), [5])  # type: ignore[arg-type]
        beside = stratified_wilson([*strata([successes], [10]), sample([], [])], [5, 5])  # type: ignore[list-item]
        expected = wilson(successes, 10)
        for ours in (alone, beside):
            assert (ours.rate, ours.low, ours.high) == pytest.approx((expected.rate, expected.low, expected.high))


def test_strata_that_all_succeeded_have_an_interval() -> None:
    ours = stratified_wilson(strata([10, 5], [10, 5]), [1, 1])  # type: ignore[arg-type]
    assert (ours.rate, ours.high) == (1.0, 1.0)
    assert wilson(5, 5).low < ours.low < 1


def test_clusters_lie_between_their_number_and_that_of_their_episodes() -> None:
    """Repeats that say nothing new count as one; repeats as different as other episodes count as such."""
    same = sample([2] * 7 + [0] * 3, [2] * 10)
    assert (same.successes, same.episodes) == (14, 20)
    assert same.effective == pytest.approx(10.0)
    assert sample([1] * 10, [2] * 10).effective == 20
    assert sample([2] * 10, [2] * 10).effective == 10  # all succeeded: nothing is known of how alike repeats are
    assert clustered_wilson(sample([2] * 10, [2] * 10)).high == 1.0
    rng = np.random.default_rng(0)
    independent = [sample(rng.binomial(4, 0.6, 50).tolist(), [4] * 50).effective for _ in range(200)]
    assert 160 < np.mean(independent) <= 200


def test_coverage_of_the_clustered_interval() -> None:
    """Init states of very different difficulty, four repeats each: plain Wilson is too sure of itself, the clustered one is not."""
    rng = np.random.default_rng(1)
    covered = {"plain": 0, "clustered": 0}
    for _ in range(600):
        successes = rng.binomial(4, rng.beta(0.6, 0.4, 50))
        plain = wilson(int(successes.sum()), 200)
        clustered = clustered_wilson(sample(successes.tolist(), [4] * 50))
        covered["plain"] += plain.low <= 0.6 <= plain.high
        covered["clustered"] += clustered.low <= 0.6 <= clustered.high
    assert covered["plain"] < 0.87 * 600
    assert 0.92 * 600 < covered["clustered"] < 0.985 * 600


@pytest.mark.parametrize(
    ("table", "difference", "low", "high"),
    [((36, 12, 2, 0), 0.2, 0.0569, 0.3404), ((1, 1, 7, 12), -0.2857, -0.507, -0.026)],
)
def test_newcombes_interval_equals_published_ones(
    table: tuple[int, ...], difference: float, low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 2635-2650, and Fagerland, Lydersen and Laake 2017, Statistical Analysis of
    Contingency Tables, chapter 8 (airway hyper-responsiveness)."""
    ours = newcombe_paired(counts(*table))
    digits = 4 if low == 0.0569 else 3
    assert ours.rate == pytest.approx(difference, abs=1e-4)
    assert (round(ours.low, digits), round(ours.high, digits)) == (low, high)


@pytest.mark.parametrize("table", [(53, 0, 0, 1), (0, 0, 30, 0), (0, 30, 0, 0), (10, 0, 0, 0), (0, 5, 5, 0)])
def test_newcombes_interval_at_the_edges(table: tuple[int, ...]) -> None:
    ours = newcombe_paired(counts(*table))
    both, second, first, neither = table
    mirrored = newcombe_paired(counts(both, first, second, neither))
    assert -1 <= ours.low <= ours.rate <= ours.high <= 1
    assert ours.low < ours.high
    assert (mirrored.low, mirrored.high) == pytest.approx((-ours.high, -ours.low))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 12), (12, 3), (1, 0), (7, 7), (0, 20), (120, 150)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = 1.0 if first + second == 0 else binomtest(first, first + second).pvalue
    assert mcnemar([1] * second + [-1] * first + [0] * 9) == pytest.approx(expected)


@pytest.mark.parametrize("differences", [[2, -1, 3, 1], [3, 3, -1, 0], [2, 2, 2], [1, 2, -3]])
def test_with_repeats_whole_clusters_change_sides(differences: list[int]) -> None:
    """Counted over all ways to turn them round."""
    ways = [
        abs(sum(s * d for s, d in zip(w, differences, strict=True)))
        for w in itertools.product((1, -1), repeat=len(differences))
    ]
    assert mcnemar(differences) == pytest.approx(np.mean([way >= abs(sum(differences)) for way in ways]))


def test_rounding_breaks_no_interval() -> None:
    """One run succeeded in all pairs; its count over the design effect must not exceed that of the pairs."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        sizes = rng.integers(1, 6, 8)
        firsts = rng.binomial(sizes, 0.6)
        successes = int(firsts.sum())
        table = counts(successes, int(sizes.sum()) - successes, 0, 0)
        effect = paired_design_effect(table, (sizes - firsts).tolist(), sizes.tolist())
        interval = newcombe_paired(table, design_effect=effect)
        assert 0 <= interval.rate <= interval.high <= 1


def test_repeats_widen_the_interval_of_a_difference() -> None:
    table = counts(20, 12, 2, 6)
    assert paired_design_effect(table, [1] * 12 + [-1] * 2 + [0] * 26, [1] * 40) == 1.0
    together = paired_design_effect(table, [2] * 6 + [-2] + [0] * 13, [2] * 20)
    assert 1.9 < together <= 2.0
    plain, wide = newcombe_paired(table), newcombe_paired(table, design_effect=together)
    assert wide.rate == pytest.approx(plain.rate)
    assert wide.high - wide.low > 1.3 * (plain.high - plain.low)
