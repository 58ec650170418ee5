"""The verb ``prefer``: preference pairs from what drafts changed, as rows that trl reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cowest_bench.analysis.feedback import (
    PreferencePair,
    Rule,
    Signal,
    best_drafts,
    influence,
    preference_pairs,
)
from cowest_bench.config import Frozen
from cowest_bench.errors import ConfigError, RunError
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.judge import Judge
from cowest_bench.lab.step import Step
from cowest_bench.store import Results, content_hash, replaced
from cowest_bench.tasks import Message

if TYPE_CHECKING:
    from cowest_bench.lab.local import Local

TrainingRow = dict[str, list[Message]]  # prompt and completion, or prompt, chosen and rejected


class PairSettings(Frozen):
    """How drafts become pairs (``analysis.feedback``)."""

    signal: Signal = "metric"
    """What a draft's influence is measured by; ``logprob`` needs a local strong model."""
    rule: Rule = "rank"
    near_best: float = Field(0.05, ge=0)
    """Drafts this close to the best, in units of the signal, are chosen as well."""
    margin: float = Field(0.3, gt=0)
    """How far below the best a rejected draft is, at least."""
    max_pairs: int = Field(2, ge=1)
    """Of one sample."""


@dataclass(frozen=True, eq=False)
class Prefer(Step):
    """Preference pairs from an evaluation with drafts, several of each sample, and one without."""

    verb = "prefer"
    about = "preference pairs"

    drafts: Evaluate
    alone: Evaluate
    judged: Judge | None  # where the signal is ``evaluator``
    settings: PairSettings
    seed: int = 0  # of the rule ``random``
    imitate: bool = False  # keep only the best drafts, without rejected ones (a control)

    @property
    def inputs(self) -> tuple[Evaluate, ...]:
        return (self.drafts, self.alone, *([self.judged] if self.judged else []))

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {
            "verb": self.verb,
            "inputs": [step.id for step in self.inputs],
            "scored": [self.drafts.score_id, self.alone.score_id],
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed if self.settings.rule == "random" else None,
            "imitate": self.imitate,
        }

    def check(self) -> None:
        """Refuse the signal ``evaluator`` without a judgement, by a ``ConfigError``."""
        if self.settings.signal == "evaluator" and self.judged is None:
            raise ConfigError(
                "The signal evaluator needs a model; give one with --evaluator MODEL."
            )

    def _file(self, results: Results) -> Path:
        return results.pairs / f"{self.id}.json"

    def _stored(self, results: Results) -> dict[str, Any]:
        try:
            stored = json.loads(self._file(results).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def rows(self, results: Results) -> list[TrainingRow]:
        """The rows to train on, once they are made."""
        return list(self._stored(results).get("rows", ()))

    def content(self, results: Results) -> str:
        return content_hash(self.rows(results))

    def _made_from(self, results: Results) -> list[str | None]:
        runs = [step.run(results) for step in self.inputs]
        return [run.content if run else None for run in runs]

    def is_made(self, results: Results) -> bool:
        """Whether the pairs are stored, and are those of the present answers."""
        stored = self._stored(results)
        return "rows" in stored and stored.get("made_from") == self._made_from(results)

    def make(self, lab: Local) -> None:
        """Choose the pairs and store them, or raise ``RunError`` if no drafts differ in their effect."""
        results, settings = lab.results, self.settings
        made_from = self._made_from(results)
        rated = self.judged or self.drafts
        pairs = preference_pairs(
            influence(rated.rows(results), self.alone.rows(results), settings.signal),
            seed=self.seed,
            **settings.model_dump(exclude={"signal"}),
        )
        if not pairs:
            raise RunError(
                f"No two drafts of a feedback sample of {self.drafts.task.name} differ in what they "
                "changed; ask for more drafts (k), or use another signal."
            )
        with replaced(self._file(results)) as path:
            content = {"made_from": made_from, "rows": self.training_rows(pairs)}
            path.write_text(json.dumps(content, indent=1))

    def training_rows(self, pairs: list[PreferencePair]) -> list[TrainingRow]:
        """Pairs as trl reads them, under the prompt for which the drafts were written."""

        def row(sample_id: int, **drafts: str) -> TrainingRow:
            *before, question = self.drafts.task.samples[sample_id].messages
            asked = {"role": "user", "content": self.drafts.prompts.for_draft(question["content"])}
            written = {k: [{"role": "assistant", "content": draft}] for k, draft in drafts.items()}
            return {"prompt": [*before, asked], **written}

        if self.imitate:
            return [row(best.sample_id, completion=best.draft) for best in best_drafts(pairs)]
        return [
            row(pair.sample_id, chosen=pair.chosen.draft, rejected=pair.rejected.draft)
            for pair in pairs
        ]
