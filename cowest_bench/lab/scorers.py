"""Scores: the task's own metrics as an Inspect scorer, and the gold answer's log-probability."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import ChatMessage
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState

from cowest_bench.models.local import HFLMProvider, is_plain
from cowest_bench.systems.turn import said
from cowest_bench.tasks import Split, load_task


@scorer(metrics=[mean()])
def task_metric(task: str, split: Split, options: dict[str, Any]) -> Scorer:
    """The task's own metrics by lm-eval's code; the value is the primary one.

    The arguments are names, since Inspect writes them into the log of every sample.
    """

    async def score(state: TaskState, target: Target) -> Score:
        loaded = load_task(task, split, **options)
        completions = state.metadata.get("completions") or [state.output.completion]
        values, answer = loaded.score(int(state.sample_id), completions)
        how = {"metrics": values, "score_id": loaded.score_id}
        return Score(value=loaded.primary(values), answer=answer, metadata=how)

    return score


async def gold_logprob(
    strong: HFLMProvider, asked: list[ChatMessage], output: str, prefix: str, gold: str
) -> float:
    """How probable the gold answer was (nats) where the strong model gave its own.

    Args:
        strong: The model; only local ones give it.
        asked: The conversation that the strong model answered.
        output: Its answer, which is cut behind the last ``prefix``: so the value is graded by the reasoning
            that it wrote itself.
        prefix: What it writes before an answer, such as ``answer :``.
        gold: The gold answer; of several accepted ones, the first.
    """
    before, found, _ = output.rpartition(prefix)
    start = before + found if found else f"{output} {prefix}"
    return await strong.logprob(said(asked), start, f" {gold}", plain=is_plain(asked))
