"""Two systems on the same questions: verdicts, the 2x2 table, and what a comparison could find.

Pure functions on arrays. A question is known by a key, its repeats are averaged before anything else
sees them, and a question without a score on either side is counted, never taken as wrong. "Ours" is
what is judged, "theirs" what it is judged by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import isinf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowest_bench.analysis import planning, stats
from cowest_bench.analysis.stats import Estimate, Floats, StandardError, Verdict
from cowest_bench.errors import ComparisonError

MOST_ITEMS = 10**9  # more than anyone can ask


@dataclass(frozen=True, slots=True)
class Items:
    """The questions of one data set with one system's scores.

    Attributes:
        keys: What tells questions apart, sorted; the same on both sides of a comparison.
        scores: In the units of the metric, means over repeats; NaN where there is none.
        clusters: A label for each question (see ``stats``).
    """

    keys: NDArray[Any]
    scores: Floats
    clusters: NDArray[Any]

    @classmethod
    def from_rows(cls, keys: NDArray[Any], scores: Floats, clusters: NDArray[Any]) -> Items:
        """Questions from their answers; repeats without a score do not count in the mean."""
        unique, first = np.unique(keys, return_index=True)
        scored = ~np.isnan(scores)
        means, rows = stats.average_repeats(scores[scored], keys[scored])
        all_means = np.full(len(unique), nan)
        all_means[np.searchsorted(unique, keys[scored][rows])] = means
        return cls(unique, all_means, clusters[first])


@dataclass(frozen=True, slots=True)
class Pairs:
    """The questions that both systems were asked.

    Attributes:
        keys: One for each question.
        ours: Scores; NaN where there is none.
        theirs: Likewise.
        clusters: 0..G-1.
        only_ours: How many questions only ours was asked.
        only_theirs: How many questions only theirs was asked.
    """

    keys: NDArray[Any]
    ours: Floats
    theirs: Floats
    clusters: NDArray[np.intp]
    only_ours: int = 0
    only_theirs: int = 0

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which questions have a score on both sides."""
        return ~(np.isnan(self.ours) | np.isnan(self.theirs))


@dataclass(frozen=True, slots=True)
class Contrast:
    """Ours against theirs on the questions that both have scores for.

    Scores and differences are in the units of the metric. A score above 0 is right, so that for
    graded scores helped and hurt are questions that gained and lost.

    Attributes:
        verdict: See ``stats.verdict``.
        difference: Ours minus theirs, with the interval that the verdict is read from.
        alpha: The interval's confidence level is 1 - alpha.
        p: Two-sided, by the interval's own statistic: below alpha where the interval excludes 0.
        p_holm: p, adjusted over the family of domains; the pooled p stands alone.
        ours: Mean score.
        theirs: Mean score.
        n: Questions with a score on both sides; all the numbers are about these.
        helped: Questions where ours scores higher.
        hurt: Questions where it scores lower.
        both_right: Equal scores above 0.
        both_wrong: Equal scores of 0 (or below).
        not_scored: Questions that both were asked and at least one has no score for.
        only_ours: Questions that only ours was asked.
        only_theirs: Questions that only theirs was asked.
        harm_rate: Of the questions that theirs gets right, the share that are hurt; NaN if none.
        oracle: Mean of the better score on each question: for right/wrong ones the share that at
            least one of the two gets right.
        detectable: Smallest true difference that such a run finds with 80% power
            (``planning.detectable_after``); NaN if no question differs, or with one cluster.
        needed: Questions needed to find a difference as large as the margin, or as the one that was
            measured if the margin is 0, given how often the two differ; None if they do not.
    """

    verdict: Verdict
    difference: Estimate
    alpha: float
    p: float
    p_holm: float
    ours: float
    theirs: float
    n: int
    helped: int
    hurt: int
    both_right: int
    both_wrong: int
    not_scored: int
    only_ours: int
    only_theirs: int
    harm_rate: float
    oracle: float
    detectable: float
    needed: int | None

    @property
    def oracle_gap(self) -> float:
        """How far the better of the two is from their union."""
        return self.oracle - max(self.ours, self.theirs)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems in every domain and in all of them.

    Attributes:
        domains: By name. Their intervals hold together: each is made with alpha / domains.
        pooled: All questions of all domains, each counting the same.
        margin: A loss below it does not matter.
        alpha: Of the family of domains, and of the pooled verdict.
    """

    domains: dict[str, Contrast]
    pooled: Contrast
    margin: float
    alpha: float


def pair(ours: Items, theirs: Items) -> Pairs:
    """What two systems share of one data set."""
    keys, mine, other = np.intersect1d(
        ours.keys, theirs.keys, assume_unique=True, return_indices=True
    )
    return Pairs(
        keys,
        ours.scores[mine],
        theirs.scores[other],
        np.unique(ours.clusters[mine], return_inverse=True)[1],
        len(ours.keys) - len(keys),
        len(theirs.keys) - len(keys),
    )


def pool(parts: Sequence[Pairs]) -> Pairs:
    """Several data sets as one; no cluster spans two of them."""
    if len(parts) == 1:
        return parts[0]
    groups = [part.clusters.max(initial=-1) + 1 for part in parts]
    offsets = np.cumsum([0, *groups[:-1]])
    return Pairs(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.ours for part in parts]),
        np.concatenate([part.theirs for part in parts]),
        np.concatenate([part.clusters + k for part, k in zip(parts, offsets, strict=True)]),
        sum(part.only_ours for part in parts),
        sum(part.only_theirs for part in parts),
    )


def compare(domains: Mapping[str, Pairs], *, margin: float, alpha: float = 0.05) -> Comparison:
    """Verdicts for every domain and pooled.

    The domains are one family: their p are adjusted by Holm, their intervals by Bonferroni, so that
    with probability 1 - alpha no domain's verdict is false.

    Raises:
        ComparisonError: If a domain has no question with a score on both sides.
    """
    for name, pairs in domains.items():
        if not pairs.scored.any():
            raise ComparisonError(
                f"{name}: no question has a score on both sides "
                f"({len(pairs.keys)} were asked on both); there is nothing to compare."
            )
    found = {
        name: contrast(pairs, margin=margin, alpha=alpha / len(domains))
        for name, pairs in domains.items()
    }
    if len(found) == 1:
        (only,) = found.values()
        return Comparison(found, only, margin, alpha)
    adjusted = stats.holm([each.p for each in found.values()])
    return Comparison(
        {
            name: replace(each, p_holm=float(p))
            for (name, each), p in zip(found.items(), adjusted, strict=True)
        },
        contrast(pool([*domains.values()]), margin=margin, alpha=alpha),
        margin,
        alpha,
    )


def contrast(pairs: Pairs, *, margin: float, alpha: float = 0.05) -> Contrast:
    """Ours against theirs on the questions with a score on both sides, of which there is one."""
    scored = pairs.scored
    ours, theirs, clusters = pairs.ours[scored], pairs.theirs[scored], pairs.clusters[scored]
    change = ours - theirs
    difference = stats.paired_difference(ours, theirs, clusters, alpha)
    error = stats.clustered_se(change, clusters)
    # One-sided in the direction of the difference, then doubled.
    ahead, behind = (ours, theirs) if difference.value >= 0 else (theirs, ours)
    p = min(1.0, 2 * stats.non_inferiority(ahead, behind, clusters, 0))
    hurt, right_before = int((change < 0).sum()), int((theirs > 0).sum())
    same = change == 0
    return Contrast(
        verdict=stats.verdict(difference, margin),
        difference=difference,
        alpha=alpha,
        p=p,
        p_holm=p,
        ours=float(ours.mean()),
        theirs=float(theirs.mean()),
        n=len(change),
        helped=int((change > 0).sum()),
        hurt=hurt,
        both_right=int((same & (ours > 0)).sum()),
        both_wrong=int((same & (ours <= 0)).sum()),
        not_scored=int((~scored).sum()),
        only_ours=pairs.only_ours,
        only_theirs=pairs.only_theirs,
        harm_rate=int((theirs > 0)[change < 0].sum()) / right_before if right_before else nan,
        oracle=float(np.maximum(ours, theirs).mean()),
        detectable=planning.detectable_after(error, alpha=alpha) if error.se > 0 else nan,
        needed=_needed(change, error, margin or abs(difference.value), alpha),
    )


def _needed(change: Floats, error: StandardError, target: float, alpha: float) -> int | None:
    """Smallest n whose ``planning.detectable_difference`` is at most the target."""
    discordance, n = float(np.mean(change**2)), len(change)
    if not (discordance and target and error.se > 0):
        return None
    spread = float(change.var(ddof=1))
    inflation = error.se**2 * n / spread if spread else n / error.groups

    def found(n_next: int) -> float:
        groups = max(2.0, n_next * (error.df + 1) / n)  # as many questions in a cluster as here
        return planning.detectable_difference(
            n_next, discordance, inflation=inflation, groups=groups, alpha=alpha
        )

    low, high = 1, 2
    while found(high) > target:
        low, high = high, high * 2
        if high > MOST_ITEMS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) <= target else (middle, high)
    return high


def gap_recovered(collab: Items, weak: Items, strong: Items) -> float:
    """How much of the way from the better single model to their union collaboration goes.

        (collab - best) / (oracle - best),    best = max(weak, strong)

    on the questions that all three have scores for; oracle is the mean of the better score on each
    question. Above 1 it gets right what neither does alone. NaN if the two never differ in favour of
    the worse one, so that there is no gap.
    """
    y, w, s = common_scores(collab, weak, strong)
    if not len(y):
        return nan
    best = max(w.mean(), s.mean())
    oracle = np.maximum(w, s).mean()
    return float((y.mean() - best) / (oracle - best)) if oracle - best > 1e-12 else nan


def common_scores(*systems: Items) -> Floats:
    """Scores of the questions that all systems have scores for, a row for each system."""
    common = reduce(np.intersect1d, [each.keys for each in systems])
    scores = np.array([each.scores[np.isin(each.keys, common)] for each in systems])
    return scores[:, ~np.isnan(scores).any(axis=0)]


def finite(value: float) -> float | None:
    """For JSON, which has no NaN and no infinity."""
    return None if np.isnan(value) or isinf(value) else value
