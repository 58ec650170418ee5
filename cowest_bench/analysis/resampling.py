"""What is computed by resampling whole clusters: tests, intervals and ranks.

Arrays as in ``stats``; memory does not grow with the number of draws, and the same seed gives the
same result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from cowest_bench.analysis.stats import (
    Clusters,
    Estimate,
    Floats,
    checked_scores,
    cluster_codes,
    differences,
)

CELLS = 2_000_000  # of one array while resampling


class Rank(NamedTuple):
    """Between which ranks a system lies, 1 being the best."""

    best: int
    worst: int


def sign_flip(
    ours: ArrayLike,
    theirs: ArrayLike,
    clusters: Clusters,
    *,
    draws: int = 9_999,
    seed: int = 0,
) -> float:
    """Two-sided p of the mean difference, by swapping the two systems in whole clusters.

    If the systems do not differ, the summed difference of every cluster is as likely with the other
    sign. p is the share of all 2^G sign patterns whose total is at least as far from 0; from
    ``draws`` random ones if there are more, as (1 + count) / (1 + draws) (Phipson and Smyth, 2010).
    For scores of any kind (F1, a judge), and for right/wrong ones in clusters; with single right/wrong
    samples it is McNemar's exact test.
    """
    difference = differences(ours, theirs)
    sums = np.bincount(cluster_codes(clusters, len(difference)), weights=difference)
    sums = sums[sums != 0]  # the others have no sign to flip
    if len(sums) < 2:
        return 1.0
    result = stats.permutation_test(
        (sums,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        batch=max(1, CELLS // len(sums)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def cluster_bootstrap(
    columns: Sequence[ArrayLike],
    clusters: Clusters,
    statistic: Callable[..., Any] = lambda mean: mean,
    *,
    alpha: float = 0.05,
    draws: int = 9_999,
    seed: int = 0,
) -> Estimate:
    """A function of the means of columns, with a BCa bootstrap interval that resamples clusters.

    For what has no formula of its own; the share of the gap between two systems that a third closes:

        cluster_bootstrap([collab, weak, strong], clusters, lambda c, w, s: (c - w) / (s - w))

    ``statistic`` takes one array of means for each column and returns an array of that shape. BCa
    corrects the percentiles for bias and skewness (Efron, 1987; the acceleration from the jackknife
    over clusters). It holds a little less than it says: prefer ``mean_interval`` and
    ``paired_difference`` where they apply. NaN where resampling changes nothing.
    """
    table = [checked_scores(column) for column in columns]
    codes = cluster_codes(clusters, len(table[0]))
    sizes = np.bincount(codes)
    parts = [*(np.bincount(codes, weights=column) for column in table), sizes.astype(float)]

    def of_means(*resampled: Floats, axis: int = -1) -> Any:
        *sums, n = (part.sum(axis=axis) for part in resampled)
        return statistic(*(total / n for total in sums))

    value = float(of_means(*parts)) if len(sizes) else nan
    if len(sizes) < 2:
        return Estimate(value, nan, nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            parts,
            of_means,
            paired=True,
            vectorized=True,
            n_resamples=draws,
            batch=max(1, CELLS // len(sizes)),
            confidence_level=1 - alpha,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


def rank_intervals(
    scores: ArrayLike,
    clusters: Clusters,
    *,
    alpha: float = 0.05,
    draws: int = 2_000,
    seed: int = 0,
) -> list[Rank]:
    """Ranks of systems (rows) that answered the same samples (columns), all at once.

    A joint bootstrap of clusters gives c, the ``1 - alpha`` quantile over the draws of

        sqrt(G/(G-1)) max_{j,k} |d*_jk - d_jk| / se_jk,    d_jk = mean_j - mean_k

    j is better than k if ``d_jk > c se_jk``; a system's best rank is 1 + how many are better than it,
    its worst how many it is not better than. Systems that cannot be told apart thus share ranks, and
    with probability ``1 - alpha`` every true rank is inside (Mogstad, Romano, Shaikh and Wilhelm,
    2024). The percentiles of bootstrapped ranks, though common, do not hold that.
    """
    table = np.atleast_2d(checked_scores(scores))
    codes = cluster_codes(clusters, table.shape[1])
    systems, sizes = len(table), np.bincount(codes)
    groups = len(sizes)
    if groups < 2:
        return [Rank(1, systems)] * systems
    means = table.mean(axis=1)
    sums = np.stack([np.bincount(codes, weights=row) for row in table])
    influence = (sums - means[:, None] * sizes) / sizes.sum()
    covariance = influence @ influence.T
    own = np.diag(covariance)
    se = np.sqrt(np.maximum(own[:, None] + own - 2 * covariance, 0))
    # Two systems with the same answers, up to rounding, have no order to find.
    se[se < 1e-12] = np.inf

    rng = np.random.default_rng(seed)
    batch = max(1, CELLS // max(groups, systems**2))
    largest = []
    for start in range(0, draws, batch):
        counts = rng.multinomial(groups, np.full(groups, 1 / groups), min(batch, draws - start))
        shift = counts @ sums.T / (counts @ sizes)[:, None] - means
        largest.append(np.max(np.abs(shift[:, :, None] - shift[:, None, :]) / se, axis=(1, 2)))
    # Resamples vary less than samples, by (G-1)/G.
    critical = np.quantile(np.concatenate(largest), 1 - alpha) * np.sqrt(groups / (groups - 1))
    # Above 0, which it is not if no two systems differ: those are infinitely many errors apart.
    better = means[:, None] - means > max(critical, 1e-12) * se
    best, worst = 1 + better.sum(axis=0), systems - better.sum(axis=1)
    return [Rank(int(low), int(high)) for low, high in zip(best, worst, strict=True)]
