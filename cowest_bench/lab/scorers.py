"""Scores, as Inspect scorers: the task's own metrics, and the gold answer's log-probability.

Scorers are the only code that sees a sample's gold answer. Their arguments are names, since Inspect
writes them into the log of every sample.
"""

from __future__ import annotations

from typing import Any

from inspect_ai.model import get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState

from cowest_bench.models.local import is_plain
from cowest_bench.tasks import Split, load_task


@scorer(metrics=[mean()])
def task_metric(task: str, split: Split, options: dict[str, Any]) -> Scorer:
    """The task's own metrics by lm-eval's code; the value is the primary one."""

    async def score(state: TaskState, target: Target) -> Score:
        loaded = load_task(task, split, **options)
        completions = state.metadata.get("completions") or [state.output.completion]
        values, answer = loaded.score(int(state.sample_id), completions)
        how = {"metrics": values, "score_id": loaded.score_id}
        return Score(value=loaded.primary(values), answer=answer, metadata=how)

    return score


@scorer(metrics=[mean()])
def gold_logprob(prefix: str) -> Scorer:
    """How probable the gold answer was (nats) where the strong model gave its own.

    Of several accepted answers, the first.

    The strong model's text is cut behind the last ``prefix`` (such as ``answer :``), so the value is
    graded by the reasoning that it wrote itself. Only local models give it.
    """

    async def score(state: TaskState, target: Target) -> Score:
        strong = get_model(role="strong", required=True).api
        before, found, _ = state.output.completion.rpartition(prefix)
        start = before + found if found else f"{state.output.completion} {prefix}"
        messages = [{"role": message.role, "content": message.text} for message in state.messages]
        value = await strong.logprob(  # type: ignore[attr-defined]
            messages, start, f" {target[0]}", plain=is_plain(state.messages)
        )
        return Score(value=value)

    return score
