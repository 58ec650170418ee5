"""Statistics on arrays of per-question scores. Questions are the unit; repeats of one are averaged
before anything else, and questions that share a cluster (a disease, a passage) are not independent.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class Estimate(NamedTuple):
    """A mean with its 95% interval."""

    value: float
    low: float
    high: float


class Discordance(NamedTuple):
    """How many questions one system gets right and the other wrong."""

    helped: int
    hurt: int
    p: float


def clustered_se(values: ArrayLike, clusters: Sequence[Hashable]) -> tuple[float, int]:
    """Standard error of a mean of clustered values, and the number of clusters G.

    ``sqrt(G/(G-1) * sum_g (sum_i in g (x_i - mean))^2) / n``, the cluster-robust variance of a mean
    with the usual small-sample factor (Cameron and Miller, 2015, equation 11).
    """
    x = np.asarray(values, dtype=float)
    names = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.bincount([names[c] for c in clusters], weights=x - x.mean())
    groups = len(sums)
    if groups < 2:
        return float("nan"), groups
    return float(np.sqrt(groups / (groups - 1) * np.sum(sums**2)) / len(x)), groups


def mean_interval(values: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """Mean score with a 95% interval for clustered questions.

    For 0/1 scores Wilson's interval at the effective sample size ``p(1-p)/se^2``, which stays inside
    [0, 1] and does not collapse at the ends (there the clusters count as the questions); otherwise
    Student's t with G-1 degrees of freedom.
    """
    x = np.asarray(values, dtype=float)
    mean = float(x.mean())
    se, groups = clustered_se(x, clusters)
    if not np.isin(x, (0.0, 1.0)).all():
        return _student(mean, se, groups)
    spread = mean * (1 - mean)
    n = min(len(x), spread / se**2) if spread > 0 and se > 0 else groups
    z = float(stats.norm.ppf(0.975))
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(spread / n + z * z / (4 * n * n)))
    # Rounding must not put the mean outside.
    return Estimate(mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)))


def paired_difference(ours: ArrayLike, theirs: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """Mean difference of two systems on the same questions, with a clustered 95% t interval."""
    difference = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    return _student(float(difference.mean()), *clustered_se(difference, clusters))


def mcnemar(ours: ArrayLike, theirs: ArrayLike) -> Discordance:
    """Questions helped and hurt, with McNemar's exact two-sided p (a binomial test at 1/2).

    A question counts when its scores differ, so that graded scores are compared by their sign. The
    test takes questions as independent; the interval of ``paired_difference`` does not.
    """
    difference: NDArray[np.float64] = np.asarray(ours, dtype=float) - np.asarray(
        theirs, dtype=float
    )
    helped, hurt = int((difference > 0).sum()), int((difference < 0).sum())
    p = stats.binomtest(helped, helped + hurt).pvalue if helped + hurt else 1.0
    return Discordance(helped, hurt, float(p))


def _student(mean: float, se: float, groups: int) -> Estimate:
    half = float(stats.t.ppf(0.975, groups - 1)) * se if groups > 1 else float("nan")
    return Estimate(mean, mean - half, mean + half)
