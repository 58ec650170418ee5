"""The method on one page, in the paper's order (CoWest, ACL 2025, arXiv 2504.15188).

A weak model that knows a domain is specialised and drafts; a strong model that does not know it
refines; what the drafts changed about the strong model's answers becomes preference pairs, and DPO
aligns the weak model with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cowest_bench.config import Limits, ModelSpec, Pairing
from cowest_bench.errors import ConfigError, RunError
from cowest_bench.lab.evaluate import Progress, evaluate
from cowest_bench.lab.feedback import (
    PreferencePair,
    Rule,
    Signal,
    best_drafts,
    influence,
    preference_pairs,
)
from cowest_bench.lab.judge import judge
from cowest_bench.lab.train import DPOSettings, Row, SFTSettings, dpo, sft
from cowest_bench.models.budget import Budget
from cowest_bench.store import Results, Run
from cowest_bench.systems import DRAFT_TEMPERATURE
from cowest_bench.tasks import Message, Task
from cowest_bench.tasks.prompts import DEFAULT_FORMAT


class Method(BaseModel):
    """How the method is run; the defaults suit a model of some billion parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = 1
    k: int = 4
    """Drafts of every feedback question."""
    format: str = DEFAULT_FORMAT
    temperature: float = DRAFT_TEMPERATURE
    signal: Signal = "metric"
    """What a draft's influence is measured by; ``logprob`` needs a local strong model."""
    rule: Rule = "rank"
    control: Literal["random-pairs", "best-draft-sft"] | None = None
    """Tune on pairs drawn at random from the same drafts, or imitate the best ones without pairs."""
    sft: SFTSettings = SFTSettings()
    dpo: DPOSettings = DPOSettings()


def cowest(
    task: Task,
    pairing: Pairing,
    *,
    results: Results,
    method: Method | None = None,
    evaluator: ModelSpec | None = None,
    seed: int = 0,
    limits: Limits | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Iterator[Run]:
    """Run the whole method on a task, and yield the test run of every system as it is finished.

    Args:
        task: A task with train, feedback, dev and test splits.
        pairing: The weak model, untrained in the domain, and the strong model.
        results: Where runs, logs and models go; what is there already is not done again.
        method: How the method is run.
        evaluator: Who judges the answers, where the method's signal is ``evaluator``.
        seed: Of training and sampling.
        limits: How long to wait for endpoints.
        budget: What may be spent.
        progress: Told what is being done, and how far it is.

    Raises:
        ConfigError: If the signal is ``evaluator`` and there is none.
        CowestError: See ``evaluate``, ``sft`` and ``dpo``.
    """
    how = method or Method()
    strong = pairing.strong
    graded = how.signal == "logprob"
    run = partial(evaluate, results=results, limits=limits, budget=budget, progress=progress)
    ask = partial(run, strong=strong, seed=seed, format=how.format, temperature=how.temperature)
    rate = partial(judge, results=results, limits=limits, budget=budget, progress=progress)
    specialise = partial(sft, results=results, settings=how.sft, seed=seed, progress=progress)
    align = partial(dpo, results=results, settings=how.dpo, seed=seed, progress=progress)

    # 1. Specialise the weak model in the domain.
    weak = specialise(pairing.weak, task.on("train").sft_rows())
    yield ask(task, "weak", weak=weak)
    yield ask(task, "strong")
    yield ask(task, "collab", weak=weak)

    for _ in range(how.rounds):
        # 2. Collaborative feedback: what did each draft change about the strong model's answer?
        drafts = ask(task.on("feedback"), "collab", weak=weak, epochs=how.k, graded=graded)
        alone = ask(task.on("feedback"), "strong", graded=graded)
        if how.signal == "evaluator":
            drafts = rate(task.on("feedback"), drafts, alone, _required(evaluator))
        candidates = influence(results.samples(drafts), results.samples(alone), how.signal)
        rule: Rule = "random" if how.control == "random-pairs" else how.rule
        pairs = preference_pairs(candidates, rule, seed)
        if not pairs:
            raise RunError(
                f"No two drafts of a feedback question of {task.name} differ in what they changed; "
                "ask for more drafts (k), or take another signal."
            )

        # 3. Align the weak model with it, as far as that helps the collaboration on dev.
        rows = preference_rows(
            task.on("feedback"), pairs, how.format, imitate=how.control == "best-draft-sft"
        )
        weak = align(weak, rows, score=partial(_dev_score, ask, task))
        yield ask(task, "collab-tuned", weak=weak, control=how.control)


def preference_rows(
    feedback: Task,
    pairs: list[PreferencePair],
    format: str = DEFAULT_FORMAT,
    *,
    imitate: bool = False,
) -> list[Row]:
    """Pairs as trl reads them, under the prompt for which the drafts were written."""
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


def _required(evaluator: ModelSpec | None) -> ModelSpec:
    if evaluator is None:
        raise ConfigError("The signal evaluator needs a model; give one with --evaluator MODEL.")
    return evaluator


def _dev_score(ask: partial[Run], task: Task, candidate: ModelSpec) -> float:
    """The collaboration's score on the dev split with this candidate as the weak model."""
    run = ask(task.on("dev"), "collab-tuned", weak=candidate)
    if run.score is None:
        raise RunError(f"No dev question of {task.name} could be scored; see {run.log}.")
    return run.score
