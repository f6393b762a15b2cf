"""Intervals and paired tests over episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its modules load where they are used: they take nearly as long as torch


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
class Mean:
    """A mean over episodes with its Student interval."""

    value: float
    low: float
    high: float
    count: int


def wilson_interval(successes: float, count: int, confidence: float = 0.95) -> Proportion:
    """Wilson's score interval of a proportion (Wilson 1927); [0, 1] without any episode.

    `successes` need not be whole: a mean over several trainings on the same episodes is not.
    """
    if count == 0:
        return Proportion(float("nan"), 0.0, 1.0, 0)
    z, share = float(scipy.stats.norm.ppf(0.5 + confidence / 2)), successes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    low = 0.0 if successes == 0 else middle - reach
    high = 1.0 if successes == count else middle + reach
    return Proportion(share, low, high, count)


def ratio_of_sums(numerator: np.ndarray, denominator: np.ndarray, confidence: float = 0.95) -> Mean:
    """Sum over sum, such as distance over time, with the interval that follows from how episodes differ.

    Linearised (Cochran 1977, *Sampling Techniques*, section 2.11), Student's t.
    """
    count, total = len(numerator), float(denominator.sum())
    ratio = float(numerator.sum()) / max(total, 1e-9)
    if count < 2:
        return Mean(ratio, float("nan"), float("nan"), count)
    residual = numerator - ratio * denominator
    spread = float(np.sqrt((residual**2).sum() * count / (count - 1))) / max(total, 1e-9)
    reach = float(scipy.stats.t.ppf(0.5 + confidence / 2, count - 1)) * spread
    return Mean(ratio, ratio - reach, ratio + reach, count)


def mcnemar(first: np.ndarray, second: np.ndarray) -> PairedShares:
    """McNemar's exact test on the episodes in which two drivers differ (McNemar 1947; Edwards' correction not needed).

    Args: bool arrays, one entry per shared episode.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired episodes: expected equal shapes, got {first.shape} and {second.shape}")
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    differ = only_first + only_second
    p_value = float(scipy.stats.binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0
    return PairedShares(only_first, only_second, p_value)


def mean_difference(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Mean:
    """Mean of `first - second` over shared episodes, with Student's t interval; episodes with a NaN are left out."""
    if first.shape != second.shape:
        raise ValueError(f"paired episodes: expected equal shapes, got {first.shape} and {second.shape}")
    difference = first - second
    difference = difference[np.isfinite(difference)]
    count = len(difference)
    if count == 0:
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    value = float(difference.mean())
    if count == 1:
        return Mean(value, float("nan"), float("nan"), 1)
    spread = float(difference.std(ddof=1) / np.sqrt(count))
    reach = float(scipy.stats.t.ppf(0.5 + confidence / 2, count - 1)) * spread
    return Mean(value, value - reach, value + reach, count)
