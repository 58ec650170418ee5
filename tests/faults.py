"""Stages at which models are asked, and an endpoint that fails at one of them, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cowest_bench.config import Asking, Limits, ModelSpec, Role
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.judge import Judge
from cowest_bench.lab.local import Local
from cowest_bench.store import Results, Run, SampleScore
from cowest_bench.systems import COLLAB, STRONG
from cowest_bench.tasks import Task, load_task
from tests.endpoint import CHOICE, Fault

TASK = "cowest_pocket_medical"
SAMPLES = 6
BAD = (1, 4)  # samples that go wrong
KEY = "sk-not-to-be-seen-987"
HURRY = Limits(attempt_timeout=4, timeout=8, retries=0, sample_retries=0)
MODELS: dict[Role, ModelSpec] = {
    role: ModelSpec(name=f"openai-api/local/{role}") for role in ("weak", "strong", "evaluator")
}
STAGES = ("draft", "refine", "alone", "evaluator")
ERRORS = ("400", "401", "403", "404", "429", "500", "hang", "broken", "reset", "cut", "filtered")
NO_ANSWERS = tuple(name for name in CHOICE if name != "empty")


def samples(count: int = SAMPLES) -> Task:
    """So many samples."""
    return load_task(TASK, "feedback", seed=3, limit=count)


def said(messages: list[dict[str, str]]) -> str:
    """What a helpful model says in each role."""
    text = messages[-1]["content"]
    if text.startswith("Rate two answers"):
        return "A coherence=9 agreement=9; B coherence=3 agreement=3"
    return "answer : A" if "a draft" in text else "a draft"


def stages(count: int = SAMPLES) -> dict[str, Evaluate]:
    """The evaluation in which each stage is."""
    drafts = Evaluate(samples(count), COLLAB, MODELS, Asking())
    alone = Evaluate(samples(count), STRONG, MODELS, Asking())
    judge = Judge.of(drafts, alone, MODELS["evaluator"])
    return {"draft": drafts, "refine": drafts, "alone": alone, "evaluator": judge}


def made(step: Evaluate, results: Results, limits: Limits = HURRY, **lab: Any) -> Run:
    """Its run, made now."""
    run = Local(results, limits=limits, **lab).do(step).run(results)
    assert run is not None
    return run


def goes_wrong(stage: str, fault: str) -> Callable[[str], Fault]:
    """How the endpoint fails on the samples ``BAD``, at one stage."""
    questions = [samples().samples[number].messages[-1]["content"] for number in BAD]
    wanted = {"draft": "first", "alone": "first"}.get(stage, stage)

    def of(text: str) -> Fault:
        rated = text.startswith("Rate two answers")
        at = "evaluator" if rated else "refine" if "a draft" in text else "first"
        return fault if at == wanted and any(question in text for question in questions) else None

    return of


def calls(row: SampleScore) -> int:
    """How many were answered."""
    return row.weak_calls + row.strong_calls + row.evaluator_calls
