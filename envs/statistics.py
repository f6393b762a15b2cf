"""Intervals and paired tests over episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Proportion:
    """A share of `count` episodes with its interval."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedShares:
    """The same yes-or-no question to two drivers on the same episodes.

    Attributes:
        only_first: Episodes in which only the first driver had the event.
        only_second: ... only the second.
        p_value: Two-sided exact McNemar: how likely a split this uneven is if both are equal.
    """

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class MeanDifference:
    """Mean of paired differences with its Student interval."""

    value: float
    low: float
    high: float
    count: int


def wilson_interval(successes: int, count: int, confidence: float = 0.95) -> Proportion:
    """Wilson's score interval of a proportion (Wilson 1927); [0, 1] without any episode."""
    if count == 0:
        return Proportion(float("nan"), 0.0, 1.0, 0)
    interval = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return Proportion(successes / count, float(interval.low), float(interval.high), count)


def mcnemar(first: np.ndarray, second: np.ndarray) -> PairedShares:
    """McNemar's exact test on the episodes in which two drivers differ (McNemar 1947; Edwards' correction not needed).

    Args: bool arrays, one entry per shared episode.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired episodes: expected equal shapes, got {first.shape} and {second.shape}")
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    differ = only_first + only_second
    p_value = float(stats.binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0
    return PairedShares(only_first, only_second, p_value)


def mean_difference(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> MeanDifference:
    """Mean of `first - second` over shared episodes, with Student's t interval; episodes with a NaN are left out."""
    if first.shape != second.shape:
        raise ValueError(f"paired episodes: expected equal shapes, got {first.shape} and {second.shape}")
    difference = first - second
    difference = difference[np.isfinite(difference)]
    count = len(difference)
    if count == 0:
        return MeanDifference(float("nan"), float("nan"), float("nan"), 0)
    value = float(difference.mean())
    if count == 1:
        return MeanDifference(value, float("nan"), float("nan"), 1)
    spread = float(difference.std(ddof=1) / np.sqrt(count))
    reach = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * spread
    return MeanDifference(value, value - reach, value + reach, count)
