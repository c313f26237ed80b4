"""Confidence intervals for success rates, and for the difference of two that were measured on the same episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A rate, or a difference of rates, and its confidence interval; nan where there is no episode."""

    rate: float
    low: float
    high: float


NOTHING_KNOWN = Interval(rate=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Finished episodes of one task, or of tasks that are pooled."""

    successes: int
    episodes: int
    effective: float
    """Independent episodes that would say as much: fewer than `episodes` where init states were run repeatedly."""

    @property
    def rate(self) -> float:
        """Of success; nan without episodes."""
        return self.successes / self.episodes if self.episodes else math.nan


def sample(successes: Sequence[int], episodes: Sequence[int]) -> Sample:
    """Episodes in clusters: those that began in the same init state of the same task, of which there is one each without repeats.

    The effective number is n / deff with the design effect deff, the linearised variance of the rate between clusters over that
    of n independent episodes, taken between 1 and the mean cluster's size; the latter where all succeeded or all failed.
    Source: Franco, Little, Louis and Slud 2019, J. Survey Statistics and Methodology 7(3), 334-364.

    Args:
        successes: of each cluster.
        episodes: of each cluster, at least 1.

    Raises:
        ValueError: the counts make no sense.
    """
    y, m = np.asarray(successes, dtype=np.float64), np.asarray(episodes, dtype=np.float64)
    if y.shape != m.shape or (m < 1).any() or (y < 0).any() or (y > m).any():
        raise ValueError(f"expected 0 <= successes <= episodes in every cluster, got {successes} of {episodes}")
    count, clusters = int(m.sum()), len(m)
    if count == clusters:  # no repeats
        return Sample(successes=int(y.sum()), episodes=count, effective=float(count))
    rate = y.sum() / count
    mean_size = count / clusters
    if clusters < 2 or rate in (0.0, 1.0):
        deff = mean_size
    else:
        variance = clusters / (clusters - 1) * ((y - rate * m) ** 2).sum() / count**2
        deff = min(max(variance / (rate * (1 - rate) / count), 1.0), mean_size)
    return Sample(successes=int(y.sum()), episodes=count, effective=count / deff)


def wilson(successes: float, episodes: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a binomial proportion.

    Source: Wilson 1927, JASA 22(158), 209-212; without continuity correction.

    Args:
        successes: may be a fraction, as may `episodes`, where they are effective ones.

    Raises:
        ValueError: the counts or the confidence make no sense.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"expected 0 <= successes <= episodes, got {successes} of {episodes}")
    if episodes == 0:
        return NOTHING_KNOWN
    rate = successes / episodes
    low, high = _score_limits(rate, episodes, _quantile(confidence))
    return Interval(
        rate=rate,
        low=0.0 if successes == 0 else max(0.0, low),
        high=1.0 if successes == episodes else min(1.0, high),
    )


def clustered_wilson(of: Sample, confidence: float = 0.95) -> Interval:
    """Wilson's interval with the effective number of episodes; plain Wilson without repeats."""
    if not of.episodes:
        return NOTHING_KNOWN
    return wilson(of.effective if of.successes == of.episodes else of.rate * of.effective, of.effective, confidence)


def stratified_wilson(strata: Sequence[Sample], weights: Sequence[float], confidence: float = 0.95) -> Interval:
    """Σ wᵢ pᵢ over strata (tasks) of unequal size, and its interval: Wilson's of each stratum, narrowed so that together they
    have the confidence asked for.

    Source: Yan and Su 2010, Statistics in Biopharmaceutical Research 2(3), 329-335, with given weights. A stratum's variance is
    taken at the centre of its Wilson interval where every stratum's rate is 0 or 1, at which the formula is 0 / 0.

    Args:
        weights: of the strata, in any unit. A stratum without episodes has none.

    Raises:
        ValueError: as many weights as strata are needed.
    """
    if len(strata) != len(weights):
        raise ValueError(f"expected {len(strata)} weights, got {len(weights)}")
    known = [(s, w) for s, w in zip(strata, weights, strict=True) if s.episodes]
    if not known:
        return NOTHING_KNOWN
    z = _quantile(confidence)
    weight = np.array([w for _, w in known], dtype=np.float64)
    weight /= weight.sum()
    rate, count = (np.array(values) for values in zip(*((s.rate, s.effective) for s, _ in known), strict=True))
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count) if np.isin(rate, (0.0, 1.0)).all() else rate
    deviation = np.sqrt(centre * (1 - centre) / count)
    narrowed = z * math.sqrt((weight**2 * deviation**2).sum()) / (weight * deviation).sum()
    limits = np.array([_score_limits(p, n, narrowed) for p, n in zip(rate, count, strict=True)])  # [strata, 2]
    low, high = weight @ limits
    return Interval(rate=float(weight @ rate), low=max(0.0, float(low)), high=min(1.0, float(high)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCounts:
    """Episodes that two runs have both finished, by who succeeded."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def total(self) -> int:
        """All pairs."""
        return self.both + self.first_only + self.second_only + self.neither


def newcombe_paired(counts: PairedCounts, confidence: float = 0.95, design_effect: float = 1.0) -> Interval:
    """The second's rate minus the first's on the same episodes, and its interval.

    Source: Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10: Wilson's limits of both rates, combined with their
    correlation φ, which is corrected for continuity.

    Args:
        design_effect: by which repeats of init states reduce what the pairs say; see `paired_design_effect`.
    """
    n = counts.total / design_effect
    if not n:
        return NOTHING_KNOWN
    both, first, second, neither = counts.both, counts.first_only, counts.second_only, counts.neither
    ours, theirs = (wilson((both + alone) / design_effect, n, confidence) for alone in (second, first))
    product = (both + second) * (first + neither) * (both + first) * (second + neither) / design_effect**4
    cross = (both * neither - second * first) / design_effect**2
    corrected = cross if cross < 0 else max(0.0, cross - n / 2)
    phi = corrected / math.sqrt(product) if product > 0 else 0.0
    difference = ours.rate - theirs.rate
    below, above = ours.rate - ours.low, theirs.high - theirs.rate
    low = difference - math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    above, below = ours.high - ours.rate, theirs.rate - theirs.low
    high = difference + math.sqrt(max(0.0, above**2 - 2 * phi * above * below + below**2))
    return Interval(rate=difference, low=max(-1.0, low), high=min(1.0, high))


def paired_design_effect(counts: PairedCounts, differences: Sequence[int], episodes: Sequence[int]) -> float:
    """Variance of the mean difference between clusters over that of independent pairs; see `sample`.

    Args:
        differences: of each cluster, the second's successes minus the first's.
        episodes: pairs of each cluster.
    """
    d, m = np.asarray(differences, dtype=np.float64), np.asarray(episodes, dtype=np.float64)
    count, clusters = m.sum(), len(m)
    if count == clusters:
        return 1.0
    mean, mean_size = d.sum() / count, count / clusters
    alone = (counts.first_only + counts.second_only) / count - mean**2
    if clusters < 2 or alone <= 0:
        return float(mean_size)
    between = clusters / (clusters - 1) * ((d - mean * m) ** 2).sum() / count
    return float(min(max(between / alone, 1.0), mean_size))


def mcnemar(differences: Sequence[int]) -> float:
    """The exact two-sided p-value of no difference, from each cluster's: the second's successes minus the first's.

    Under no difference each cluster's difference is as likely the other way round; p is the share of the 2ᵏ ways that are at least
    as far from zero in sum. Without repeats that is McNemar's exact test (McNemar 1947, Psychometrika 12, 153-157).
    """
    sizes = [abs(int(d)) for d in differences if d]
    if not sizes:
        return 1.0
    observed = abs(sum(int(d) for d in differences))
    if max(sizes) == 1:
        return float(binomtest((len(sizes) + observed) // 2, len(sizes)).pvalue)
    chances = _sum_of_signed(sizes)
    values = np.arange(len(chances)) - sum(sizes)
    return float(min(1.0, chances[np.abs(values) >= observed].sum()))


def _sum_of_signed(sizes: Sequence[int]) -> NDArray[np.float64]:
    """The distribution of Σ ± size over -Σ … Σ."""
    chances = np.ones(1)
    for size in sizes:
        step = np.zeros(2 * size + 1)
        step[0] = step[-1] = 0.5
        chances = np.convolve(chances, step)
    return chances


def _quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    return float(norm.ppf(0.5 + confidence / 2))


def _score_limits(rate: float, episodes: float, z: float) -> tuple[float, float]:
    """Wilson's limits at the normal quantile z."""
    shrunk = (rate + z * z / (2 * episodes)) / (1 + z * z / episodes)
    half = z / (1 + z * z / episodes) * math.sqrt(rate * (1 - rate) / episodes + z * z / (4 * episodes * episodes))
    return shrunk - half, shrunk + half
