"""Estimates against scikit-learn, brute force and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likewise.estimates import auc, proportion


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_is_scikit_learn_s_with_ties_and_all(pairs):
    from sklearn.metrics import roc_auc_score

    score, positive = np.array([float(s) for s, _ in pairs]), np.array([p for _, p in pairs])
    found = auc(score, positive)
    if positive.all() or not positive.any():
        assert found is None
        return
    assert found.value == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.n == len(pairs)


def _coverage(interval, truth: float, repeats: int) -> float:
    inside = [low <= truth <= high for low, high in (interval(i) for i in range(repeats))]
    return float(np.mean(inside))


@pytest.mark.parametrize(("gap", "ups", "downs"), [(0.0, 40, 40), (1.0, 60, 20), (2.0, 50, 50)])
def test_the_interval_of_the_auc_holds_the_truth_about_95_times_in_100(gap, ups, downs):
    from scipy.stats import norm

    truth = float(norm.cdf(gap / np.sqrt(2)))  # P(N(gap, 1) > N(0, 1))

    def interval(i: int):
        generator = np.random.default_rng([i, ups])
        score = np.concatenate([generator.normal(gap, 1, ups), generator.normal(0, 1, downs)])
        found = auc(score, np.arange(ups + downs) < ups)
        return found.low, found.high

    assert 0.93 <= _coverage(interval, truth, 800) <= 0.975  # 0.95 ± 2.6 standard errors


def test_the_interval_of_the_auc_is_as_wide_as_the_bootstrap_s():
    generator = np.random.default_rng(1)
    score = np.concatenate([generator.normal(0.7, 1, 80), generator.normal(0, 1, 60)])
    positive = np.arange(140) < 80
    draws = []
    for _ in range(1000):
        up, down = generator.integers(0, 80, 80), generator.integers(80, 140, 60)
        draws.append(auc(score[np.r_[up, down]], positive).value)
    low, high = np.percentile(draws, [2.5, 97.5])
    found = auc(score, positive)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_a_perfect_ranking_of_few_is_not_called_certain():
    found = auc(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, True, False, False]))
    assert found.value == 1.0
    assert found.low < 0.7
    assert found.high == 1.0


@pytest.mark.parametrize(("p", "n"), [(0.5, 30), (0.9, 50), (0.02, 100)])
def test_the_interval_of_a_share_holds_the_truth(p, n):
    def interval(i: int):
        found = proportion(float(np.random.default_rng([i, n]).binomial(n, p)), n)
        return found.low, found.high

    assert 0.92 <= _coverage(interval, p, 1500) <= 0.985


def test_the_interval_of_a_share_by_hand():
    # Wilson for 8 of 10: centre (0.8 + 3.8415/20) / (1 + 3.8415/10), as in any textbook: 0.4902 to 0.9433.
    found = proportion(8, 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert proportion(0, 10).low == pytest.approx(0, abs=1e-12)
