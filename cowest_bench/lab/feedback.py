"""Collaborative feedback: what a draft changed, and the preference pairs that follow (section 3.2).

Feedback is an ordinary evaluation of the feedback split: k epochs of ``collab``, one of ``strong``. The
influence of draft y on query x is ``Δ = E(strong(x, y)) - E(strong(x))``, where E is the task's own
metric; or, graded and without ties, the gold answer's log-probability behind the strong model's own
reasoning; or an evaluator's rating of both answers (``judge.py``). Two drafts of one query with different influence make a pair.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from cowest_bench.errors import ConfigError
from cowest_bench.store import SampleScore

Signal = Literal["metric", "logprob", "evaluator"]
Rule = Literal["sign", "rank", "random"]

NEAR_BEST = 0.05  # rank: drafts this close to the best (in Δ) count as chosen as well
MARGIN = 0.3  # rank: how far below the best (in Δ) a draft must be to be rejected
MAX_PAIRS = 2  # per query, so that no query dominates


@dataclass(frozen=True, slots=True)
class Candidate:
    """A draft with its influence on the strong model."""

    sample_id: int
    draft: str
    influence: float


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two drafts of one query, of which the first helped the strong model more."""

    sample_id: int
    chosen: Candidate
    rejected: Candidate


def influence(
    drafts: Iterable[SampleScore], alone: Iterable[SampleScore], signal: Signal = "logprob"
) -> list[Candidate]:
    """Δ of every scored draft (``collab`` rows) against the strong model alone (``strong`` rows).

    An evaluator's rows (``judge.judge``) have Δ as their score already.

    Queries that could not be scored with or without a draft say nothing and are left out.

    Raises:
        ConfigError: If the runs were made without log-probabilities and the signal needs them.
    """
    if signal == "evaluator":
        return [
            Candidate(row.sample_id, row.draft, row.score)
            for row in drafts
            if row.draft and row.score is not None
        ]
    value: Callable[[SampleScore], float | None] = (
        (lambda row: row.score) if signal == "metric" else (lambda row: row.gold_logprob)
    )
    without = {row.sample_id: value(row) for row in alone}
    candidates = []
    for row in drafts:
        before, after = without.get(row.sample_id), value(row)
        if row.draft and before is not None and after is not None:
            candidates.append(Candidate(row.sample_id, row.draft, after - before))
    if not candidates and signal == "logprob":
        raise ConfigError(
            "The feedback runs hold no log-probabilities of gold answers; "
            "evaluate them with graded=True, or use the signal metric."
        )
    return candidates


def preference_pairs(
    candidates: Iterable[Candidate], rule: Rule = "rank", seed: int = 0
) -> list[PreferencePair]:
    """At most ``MAX_PAIRS`` pairs of every query.

    Args:
        candidates: Drafts with their influence.
        rule: ``sign`` is the paper's: a draft that helped (Δ > 0) against one that did not (Δ <= 0).
            ``rank`` needs no sign: a draft near the best, if that helped at all, against one well
            below it. ``random`` is the control: as many pairs of the same queries as by ``rank``,
            but of any two drafts in any order.
        seed: Of the control's order.
    """
    by_query: dict[int, dict[str, Candidate]] = {}
    for candidate in candidates:
        by_query.setdefault(candidate.sample_id, {}).setdefault(candidate.draft, candidate)
    rng = random.Random(seed)
    return [
        PreferencePair(sample_id, chosen, rejected)
        for sample_id, distinct in sorted(by_query.items())
        for chosen, rejected in _pairs(list(distinct.values()), rule, rng)
    ]


def _pairs(
    drafts: Sequence[Candidate], rule: Rule, rng: random.Random
) -> list[tuple[Candidate, Candidate]]:
    """The pairs of one query's distinct drafts, the clearest first."""
    if rule == "sign":
        chosen = [draft for draft in drafts if draft.influence > 0]
        rejected = [draft for draft in drafts if draft.influence <= 0]
    else:
        best = max(draft.influence for draft in drafts)
        chosen = [d for d in drafts if d.influence > 0 and d.influence >= best - NEAR_BEST]
        rejected = [d for d in drafts if d.influence <= best - MARGIN]
    pairs = sorted(
        product(chosen, rejected), key=lambda pair: pair[1].influence - pair[0].influence
    )
    if rule == "random":
        return [tuple(rng.sample(drafts, 2)) for _ in pairs[:MAX_PAIRS]]  # type: ignore[misc]
    return pairs[:MAX_PAIRS]


def best_drafts(pairs: Iterable[PreferencePair]) -> list[Candidate]:
    """The chosen drafts, each once: what the control trains on without any rejected ones."""
    return list({(pair.sample_id, pair.chosen.draft): pair.chosen for pair in pairs}.values())
