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
from cowest_bench.tasks import Message, Task

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
    """Preference pairs from an evaluation with drafts and one without.

    Attributes:
        drafts: The collaboration on the feedback split, several epochs.
        alone: The strong model alone on the same samples.
        judged: The judgement of their answers, where the signal is ``evaluator``.
        settings: How drafts become pairs.
        seed: Of the rule ``random``.
        imitate: Whether to keep only the best drafts, without rejected ones (a control).
    """

    verb = "prefer"

    drafts: Evaluate
    alone: Evaluate
    judged: Judge | None
    settings: PairSettings
    seed: int = 0
    imitate: bool = False

    @property
    def inputs(self) -> tuple[Step, ...]:
        return (self.drafts, self.alone, *([self.judged] if self.judged else []))

    @property
    def about(self) -> str:
        return "preference pairs"

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
        """Refuse a signal that nothing provides.

        Raises:
            ConfigError: If the signal is ``evaluator`` and there is none.
        """
        if self.settings.signal == "evaluator" and self.judged is None:
            raise ConfigError(
                "The signal evaluator needs a model; give one with --evaluator MODEL."
            )

    def file(self, results: Results) -> Path:
        return results.pairs / f"{self.id}.json"

    def rows(self, results: Results) -> list[TrainingRow]:
        """The rows to train on, once they are made."""
        stored = self._stored(results)
        return list(stored["rows"]) if stored else []

    def content(self, results: Results) -> str:
        return content_hash(self.rows(results))

    def feedback(self) -> dict[str, str | None]:
        """The ids of the runs behind the pairs, for the card of a training."""
        return {
            "drafts": self.drafts.id,
            "alone": self.alone.id,
            "judged": self.judged.id if self.judged else None,
        }

    def _stored(self, results: Results) -> dict[str, Any] | None:
        try:
            stored = json.loads(self.file(results).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if isinstance(stored, dict) and "rows" in stored else None

    def _made_from(self, results: Results) -> list[str | None]:
        runs = [step.run(results) for step in (self.drafts, self.alone, self.judged) if step]
        return [run.content if run else None for run in runs]

    def is_made(self, results: Results) -> bool:
        """Whether the pairs are stored, and are those of the present answers."""
        stored = self._stored(results)
        return stored is not None and stored.get("made_from") == self._made_from(results)

    def make(self, lab: Local) -> None:
        """Choose the pairs and store them.

        Raises:
            RunError: If no two drafts differ in what they changed.
        """
        results = lab.results
        made_from = self._made_from(results)
        settings = self.settings
        rated = self.judged or self.drafts
        candidates = influence(rated.rows(results), self.alone.rows(results), settings.signal)
        pairs = preference_pairs(
            candidates,
            settings.rule,
            near_best=settings.near_best,
            margin=settings.margin,
            max_pairs=settings.max_pairs,
            seed=self.seed,
        )
        if not pairs:
            raise RunError(
                f"No two drafts of a feedback sample of {self.drafts.task.name} differ in what they "
                "changed; ask for more drafts (k), or use another signal."
            )
        rows = preference_rows(
            self.drafts.task, pairs, self.drafts.asking.format, imitate=self.imitate
        )
        with replaced(self.file(results)) as path:
            path.write_text(json.dumps({"made_from": made_from, "rows": rows}, indent=1))


def preference_rows(
    feedback: Task, pairs: list[PreferencePair], format: str, *, imitate: bool = False
) -> list[TrainingRow]:
    """Pairs as trl reads them, under the prompt for which the drafts were written.

    Args:
        feedback: The task on its feedback split.
        pairs: Of its samples.
        format: The interaction format of the drafts.
        imitate: Whether to keep only the best drafts, as completions.
    """
    prompts = feedback.prompts(format)

    def prompt(sample_id: int) -> list[Message]:
        *before, question = feedback.samples[sample_id].messages
        return [*before, {"role": "user", "content": prompts.for_draft(question["content"])}]

    def written(draft: str) -> list[Message]:
        return [{"role": "assistant", "content": draft}]

    if imitate:
        return [
            {"prompt": prompt(best.sample_id), "completion": written(best.draft)}
            for best in best_drafts(pairs)
        ]
    return [
        {
            "prompt": prompt(pair.sample_id),
            "chosen": written(pair.chosen.draft),
            "rejected": written(pair.rejected.draft),
        }
        for pair in pairs
    ]
