"""Intervals and tests: by hand, by brute force, by simulation."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cowest_bench import stats

binary = st.lists(st.booleans().map(float), min_size=1, max_size=12)


def test_clustered_se_of_single_questions_is_the_ordinary_one() -> None:
    x = [0.0, 1.0, 1.0, 0.0, 1.0]
    se, groups = stats.clustered_se(x, range(5))
    assert groups == 5
    assert se == pytest.approx(np.std(x, ddof=1) / np.sqrt(5))


def test_clustered_se_counts_copies_once() -> None:
    """Asking every question three times must not make the interval narrower."""
    x = [0.0, 1.0, 1.0, 0.0, 1.0]
    once, _ = stats.clustered_se(x, range(5))
    thrice, _ = stats.clustered_se(x * 3, [*range(5)] * 3)
    assert thrice == pytest.approx(once)


@given(binary, binary)
def test_mcnemar_equals_enumeration(a: list[float], b: list[float]) -> None:
    n = min(len(a), len(b))
    result = stats.mcnemar(a[:n], b[:n])
    m, k = result.helped + result.hurt, result.helped
    tail = sum(comb(m, i) for i in range(m + 1) if comb(m, i) <= comb(m, k)) / 2**m
    assert result.p == pytest.approx(tail)


def test_mcnemar_counts_by_hand() -> None:
    assert stats.mcnemar([1, 1, 1, 0], [0, 0, 1, 1]) == (2, 1, 1.0)
    assert stats.mcnemar([1] * 6, [0] * 6).p == pytest.approx(2 / 64)
    assert stats.mcnemar([1, 0], [1, 0]).p == 1.0


def test_wilson_agrees_with_scipy_when_questions_are_independent() -> None:
    x = [1.0] * 30 + [0.0] * 70
    ours = stats.mean_interval(x, range(100))
    theirs = scipy_stats.binomtest(30, 100).proportion_ci(method="wilson")
    # Not to the last digit: the effective sample size has the n-1 of the sample variance in it.
    assert ours.low == pytest.approx(theirs.low, abs=1e-3)
    assert ours.high == pytest.approx(theirs.high, abs=1e-3)


@given(binary, st.integers(1, 4))
def test_interval_stays_in_range_and_around_the_mean(x: list[float], size: int) -> None:
    clusters = [i // size for i in range(len(x))]
    estimate = stats.mean_interval(x, clusters)
    assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0


def test_interval_at_zero_is_not_a_point() -> None:
    assert stats.mean_interval([0.0] * 100, [i // 4 for i in range(100)]).high > 0.05


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_coverage_with_clusters(rate: float) -> None:
    """95% intervals hold the truth in about 95% of seeded repetitions with correlated questions."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 5)
    held = 0
    for _ in range(400):
        own = rng.beta(4 * rate, 4 * (1 - rate), 60)  # correlation of 0.2 within a cluster
        x = (rng.random(300) < own[clusters]).astype(float)
        estimate = stats.mean_interval(x, clusters.tolist())
        held += estimate.low <= rate <= estimate.high
    assert 0.92 <= held / 400 <= 0.98


def test_paired_difference_uses_the_pairing() -> None:
    theirs = np.tile([0.0, 1.0], 50)
    ours = theirs.copy()
    ours[:10:2] = 1.0
    paired = stats.paired_difference(ours, theirs, range(100))
    assert paired.value == pytest.approx(0.05)
    assert paired.high - paired.low < 0.1
    assert paired.low < paired.value < paired.high
