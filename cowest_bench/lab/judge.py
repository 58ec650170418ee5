"""The evaluator: the paper's E as a model that scores both answers with a rubric (section 3.2).

``E`` is the mean of two ratings, coherence and agreement with the gold answer. The answer that had a
draft and the one that had none are shown side by side, once in each order, and neither is named, so
that a judge who prefers a place or a system gains it nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from inspect_ai.dataset import Sample
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessageUser, GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cowest_bench import models
from cowest_bench.config import ModelSpec, Role
from cowest_bench.errors import ModelError
from cowest_bench.lab.evaluate import Cell, complete
from cowest_bench.store import Results, Run, SampleScore, content_hash
from cowest_bench.systems import ask
from cowest_bench.tasks import Task

RATING_TOKENS = 64  # how long a judgement may be
BEST = 10  # the highest rating

RUBRIC = """\
Rate two answers to the same question against the reference answer. Do not prefer the longer one.

Question:
{question}

Reference answer:
{gold}

Answer A:
{first}

Answer B:
{second}

Rate each answer from 1 to 10 on coherence (is its reasoning sound and consistent?) and on agreement
(does its conclusion mean the same as the reference?). Reply with exactly this line and nothing else:
A coherence=N agreement=N; B coherence=N agreement=N\
"""

_RATING = r"\W{1,4}coherence\W{1,3}(\d{1,2})\W{1,3}agreement\W{1,3}(\d{1,2})"
_RATINGS = re.compile(rf"\bA{_RATING}\W{{1,4}}B{_RATING}", re.IGNORECASE)


def ratings(text: str) -> tuple[float, float]:
    """E of the answers A and B, in [0.1, 1].

    Raises:
        ModelError: If the judge did not keep to the form; its words are no rating then.
    """
    found = _RATINGS.search(text[:2000])
    numbers = [int(number) for number in found.groups()] if found else []
    if not numbers or not all(1 <= number <= BEST for number in numbers):
        raise ModelError("The evaluator's reply is not of the form asked for.")
    return sum(numbers[:2]) / (2 * BEST), sum(numbers[2:]) / (2 * BEST)


def rubric(question: str, gold: str, first: str, second: str) -> str:
    """What the evaluator is asked; braces in what is filled in stay as they are."""
    filled = {"question": question, "gold": gold, "first": first, "second": second}
    return re.sub(r"\{(question|gold|first|second)\}", lambda slot: filled[slot[1]], RUBRIC)


@solver
def rate() -> Solver:
    """Ask the evaluator about the answers with and without a draft, in both orders."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        epoch = str(state.metadata.get("epoch", state.epoch))
        ours, alone = state.metadata["with_draft"].get(epoch), state.metadata["alone"]
        if ours is None or alone is None:
            raise ModelError("There is no answer to judge: the strong model gave none.")
        gold, question = state.metadata["gold"], state.input_text
        config = GenerateConfig(temperature=0.0, max_tokens=RATING_TOKENS)
        orders = []
        for first, second, sign in ((ours, alone, 1), (alone, ours, -1)):
            asked = ChatMessageUser(content=rubric(question, gold, first, second))
            a, b = ratings((await ask(state, "evaluator", [asked], config)).completion)
            orders.append(sign * (a - b))
        state.metadata["orders"] = orders
        return state

    return solve


@scorer(metrics=[mean()])
def rated_influence() -> Scorer:
    """``Δ = E(strong(x, y)) - E(strong(x))``, the mean over both orders, in [-0.9, 0.9]."""

    async def score(state: TaskState, target: Target) -> Score:
        orders = state.metadata["orders"]
        return Score(value=sum(orders) / len(orders))

    return score


@dataclass(frozen=True)
class Judgement(Cell):
    """Every answer of a ``collab`` run, judged against the strong model's own.

    Its rows have Δ as their score and the draft it belongs to; its metrics say how often the two
    orders agree on who is better, and how often the judge agrees with the task's metric, of the
    answers that the metric tells apart.

    Attributes:
        evaluator: The judge.
        drafts: Rows of the ``collab`` run.
        alone: Rows of the ``strong`` run of the same questions.
    """

    evaluator: ModelSpec = field(kw_only=True)
    drafted: Sequence[SampleScore] = field(kw_only=True)
    alone: Sequence[SampleScore] = field(kw_only=True)

    @cached_property
    def specs(self) -> dict[Role, ModelSpec]:
        """The judge alone is asked."""
        return {"evaluator": self.evaluator}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that can change a rating: the judge, the rubric, and all answers."""
        answers = [(row.sample_id, row.epoch, row.output) for row in (*self.drafted, *self.alone)]
        return {
            "task": self.task.name,
            "split": self.task.split,
            "data": self.task.data_hash,
            "system": self.system,
            "models": {"evaluator": models.identity(self.evaluator)},
            "answers": content_hash(answers),
            "rubric": RUBRIC,
            "graded": False,
        }

    def samples(self) -> list[Sample]:
        """The questions with their gold answers, which this model alone may see."""
        with_draft: dict[int, dict[str, str | None]] = {}
        for row in self.drafted:
            with_draft.setdefault(row.sample_id, {})[str(row.epoch)] = row.output
        return [
            Sample(
                id=row.sample_id,
                input=row.question,
                metadata={
                    "gold": row.gold,
                    "alone": row.output,
                    "with_draft": with_draft[row.sample_id],
                },
            )
            for row in self.alone
        ]

    def solver(self) -> Solver:
        """Ask the evaluator."""
        return rate()

    def scorers(self) -> list[Scorer]:
        """The difference of the ratings."""
        return [rated_influence()]

    def record(self, sample: EvalSample) -> SampleScore:
        """Δ of one draft, with what each order said as its metrics."""
        row = self.failed(sample)
        drafted = {(each.sample_id, each.epoch): each.draft for each in self.drafted}
        row = replace(row, draft=drafted[row.sample_id, row.epoch])
        score = (sample.scores or {}).get("rated_influence")
        if score is None:
            return row
        metrics = json.dumps({"orders": sample.metadata["orders"]})
        return replace(row, score=score.as_float(), metrics=metrics, error=None)

    def metrics(self, rows: Sequence[SampleScore]) -> dict[str, float]:
        """How far the judge can be trusted."""
        orders = [json.loads(row.metrics)["orders"] for row in rows if row.metrics]
        alone = {row.sample_id: row.score for row in self.alone}
        change = {
            (row.sample_id, row.epoch): row.score - before
            for row in self.drafted
            if row.score is not None and (before := alone[row.sample_id]) is not None
        }
        agree = [
            row.score * change[row.sample_id, row.epoch] > 0
            for row in rows
            if row.score is not None and change.get((row.sample_id, row.epoch))
        ]
        shares = {
            "agreement_of_orders": [a * b >= 0 for a, b in orders],
            "agreement_with_metric": agree,
        }
        return {name: sum(each) / len(each) for name, each in shares.items() if each}


def judge(
    task: Task, drafts: Run, alone: Run, evaluator: ModelSpec, *, results: Results, **how: Any
) -> Run:
    """Have the evaluator score every draft's answer against the one without a draft.

    Args:
        task: The task, on the split that was asked.
        drafts: A ``collab`` run of it.
        alone: The ``strong`` run of it.
        evaluator: The judge.
        results: Where the runs are recorded, and this one will be.
        **how: ``limits``, ``budget`` and ``progress``, as for ``evaluate``.

    Returns:
        The run of a ``Judgement``.

    Raises:
        CowestError: As ``evaluate`` does.
    """
    cell = Judgement(
        task,
        "evaluator",
        epochs=drafts.epochs,
        evaluator=evaluator,
        drafted=results.samples(drafts),
        alone=results.samples(alone),
    )
    return complete(cell, results, **how)
