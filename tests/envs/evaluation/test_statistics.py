"""Intervals and paired tests against published figures."""

from __future__ import annotations

import numpy as np
import pytest

from drivecast.envs.evaluation.statistics import mcnemar, mean_difference, ratio_of_sums, wilson_interval


@pytest.mark.parametrize(("count", "upper"), [(50, 0.071), (100, 0.037), (500, 0.008), (1000, 0.004)])
def test_zero_crashes_prove_only_so_much(count, upper):
    interval = wilson_interval(0, count)
    assert interval.low == 0
    assert interval.high == pytest.approx(upper, abs=5e-4)


def test_no_episode_proves_nothing():
    interval = wilson_interval(0, 0)
    assert (interval.low, interval.high) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "count"), [(0, 7), (1, 40), (20, 40), (999, 1000), (7, 7)])
def test_wilson_is_what_scipy_says(successes, count):
    from scipy import stats

    expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    interval = wilson_interval(successes, count)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert interval.low <= interval.value <= interval.high


def test_a_mean_of_shares_has_an_interval_between_its_neighbours():
    assert wilson_interval(3, 100).high < wilson_interval(3 + 1 / 3, 100).high < wilson_interval(4, 100).high


def test_ratio_of_sums_covers_the_truth():
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        time_s = random.choice([5.0, 30.0], 60)
        distance_m = time_s * (20.0 + random.normal(0.0, 2.0, 60))
        interval = ratio_of_sums(distance_m, time_s)
        assert interval.value == pytest.approx(distance_m.sum() / time_s.sum())
        hits += interval.low <= 20.0 <= interval.high
    assert 0.92 < hits / 400 < 0.98


def test_mcnemar_looks_only_at_episodes_that_differ():
    first = np.array([True] * 8 + [False] * 2 + [True] * 50)
    second = np.array([False] * 8 + [True] * 2 + [True] * 50)
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (8, 2)
    assert test.p_value == pytest.approx(0.109375)  # 2 · P(X <= 2), X ~ B(10, 1/2)
    assert mcnemar(first, first).p_value == 1.0


def test_mean_difference_covers_the_truth_and_leaves_nan_out():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        first = random.normal(21.0, 2.0, 30)
        second = first - random.normal(0.5, 1.0, 30)
        first[0] = np.nan
        interval = mean_difference(first, second)
        assert interval.count == 29
        hits += interval.low <= 0.5 <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


def test_unequal_pairs_are_refused():
    with pytest.raises(ValueError, match="equal shapes"):
        mcnemar(np.zeros(3, bool), np.zeros(4, bool))
