"""Collaborative feedback: what a draft changed, and the preference pairs that follow (section 3.2).

The influence of draft y on sample x is ``Δ = E(strong(x, y)) - E(strong(x))``, where E is the task's own
metric; or, graded and without ties, the gold answer's log-probability behind the strong model's own
reasoning; or an evaluator's rating of both answers. Two drafts of one sample with different influence
make a pair.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal, Protocol

from cowest_bench.errors import ConfigError

Signal = Literal["metric", "logprob", "evaluator"]
Rule = Literal["sign", "rank", "random"]


class Answered(Protocol):
    """What is read of an answer: a row of a run."""

    @property
    def sample_id(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def draft(self) -> str | None: ...
    @property
    def score(self) -> float | None: ...
    @property
    def gold_logprob(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A draft with its influence on the strong model, in the units of the signal."""

    sample_id: int
    epoch: int
    draft: str
    influence: float


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two drafts of one sample, of which the first helped the strong model more."""

    sample_id: int
    chosen: Candidate
    rejected: Candidate


def influence(
    drafts: Iterable[Answered], alone: Iterable[Answered], signal: Signal = "metric"
) -> list[Candidate]:
    """Δ of every draft against the strong model alone, where both have a score.

    Args:
        drafts: Rows of the collaboration; with the signal ``evaluator``, those of the judgement, whose
            score is Δ already.
        alone: Rows of the strong model alone.
        signal: What Δ is measured by.

    Raises:
        ConfigError: If the rows hold no log-probabilities and the signal needs them.
    """

    def value(row: Answered) -> float | None:
        return row.gold_logprob if signal == "logprob" else row.score

    without = {row.sample_id: value(row) for row in alone}
    candidates = []
    for row in drafts:
        before = 0.0 if signal == "evaluator" else without.get(row.sample_id)
        after = value(row)
        if row.draft and before is not None and after is not None:
            candidates.append(Candidate(row.sample_id, row.epoch, row.draft, after - before))
    if not candidates and signal == "logprob":
        raise ConfigError(
            "The feedback runs hold no log-probabilities of gold answers; "
            "evaluate them with graded=True, or use the signal metric."
        )
    return candidates


def preference_pairs(
    candidates: Iterable[Candidate],
    rule: Rule = "rank",
    *,
    near_best: float = 0.05,
    margin: float = 0.3,
    max_pairs: int = 2,
    seed: int = 0,
) -> list[PreferencePair]:
    """Pairs of every sample's distinct drafts, the clearest first.

    Args:
        candidates: Drafts with their influence.
        rule: ``sign`` is the paper's: a draft that helped (Δ > 0) against one that did not (Δ <= 0).
            ``rank`` needs no sign: a draft near the best, if that helped at all, against one well
            below it. ``random`` is the control: as many pairs of the same samples as by ``rank``,
            but of any two drafts in any order.
        near_best: For ``rank``: drafts this close to the best, in Δ, are chosen as well.
        margin: For ``rank``: a rejected draft is at least this far below the best, in Δ.
        max_pairs: Of one sample, so that none dominates.
        seed: Of the control's order.
    """
    by_sample: dict[int, dict[str, Candidate]] = {}
    for candidate in candidates:
        by_sample.setdefault(candidate.sample_id, {}).setdefault(candidate.draft, candidate)
    rng = random.Random(seed)
    found = []
    for sample_id, distinct in sorted(by_sample.items()):
        drafts = [*distinct.values()]
        best = max(draft.influence for draft in drafts)
        least, most = (0.0, 0.0) if rule == "sign" else (best - near_best, best - margin)
        chosen = [d for d in drafts if d.influence > 0 and d.influence >= least]
        rejected = [d for d in drafts if d.influence <= most]
        pairs = sorted(
            product(chosen, rejected), key=lambda two: two[1].influence - two[0].influence
        )
        for better, worse in pairs[:max_pairs]:
            if rule == "random":
                better, worse = rng.sample(drafts, 2)
            found.append(PreferencePair(sample_id, better, worse))
    return found


def best_drafts(pairs: Iterable[PreferencePair]) -> list[Candidate]:
    """The chosen drafts, each once: what the control trains on without any rejected ones."""
    return list({(pair.sample_id, pair.chosen.draft): pair.chosen for pair in pairs}.values())
