"""Evaluate a system on a task: the only caller of the engine.

A cell is a task's split under one system with given models. Its run id is a hash of everything that
can change the number, so that a finished cell is never run again; an interrupted one is resumed by
the engine from the samples in its log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from inspect_ai import Task as InspectTask
from inspect_ai import eval_set
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalSample, read_eval_log_samples
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cowest_bench import models
from cowest_bench.config import SYSTEMS, ModelSpec, Role
from cowest_bench.errors import ConfigError, ModelError, RunError, suggestion
from cowest_bench.prompts import DEFAULT_FORMAT, FORMATS, Prompts
from cowest_bench.records import Results, Run, SampleScore, content_hash
from cowest_bench.scorers import gold_logprob, task_metric
from cowest_bench.systems import DRAFT_TEMPERATURE, collaborate, solo
from cowest_bench.tasks import Task

Progress = Callable[[str, int, int], None]  # what, how many samples or steps are done, of how many


def evaluate(
    task: Task,
    system: str,
    *,
    results: Results,
    weak: ModelSpec | None = None,
    strong: ModelSpec | None = None,
    seed: int = 0,
    epochs: int = 1,
    format: str = DEFAULT_FORMAT,
    temperature: float = DRAFT_TEMPERATURE,
    graded: bool = False,
    control: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Answer and score every question of a task's split with a system, or return the finished run.

    Args:
        task: The task, on the split to be asked.
        system: ``weak``, ``strong``, ``collab`` or ``collab-tuned``.
        results: Where the run is recorded.
        weak: The model in the role ``weak``, where the system has one.
        strong: The model in the role ``strong``, where the system has one.
        seed: Of the drafts' sampling.
        epochs: How often each question is asked, each time with another draft.
        format: How the weak model helps, a key of ``prompts.FORMATS``.
        temperature: Of the drafts.
        graded: Whether to record the gold answer's log-probability under the strong model.
        control: What is done on purpose to show that the effect is real, for the record; with
            ``shuffled``, every question gets the draft that was written for another one.
        progress: Told how many samples are done.

    Raises:
        ConfigError: If the system is unknown or a role has no model.
        ModelError: If a model cannot be loaded.
        RunError: If the engine could not finish.
    """
    if system not in SYSTEMS:
        raise ConfigError(f"There is no system {system}; {suggestion(system, SYSTEMS)}")
    if format not in FORMATS:
        raise ConfigError(f"There is no interaction format {format}; {suggestion(format, FORMATS)}")
    given = {"weak": weak, "strong": strong}
    specs = {role: _required(given[role], role, system) for role in SYSTEMS[system]}
    drafts = "weak" in specs and "strong" in specs
    identity: dict[str, Any] = {
        "task": task.name,
        "split": task.split,
        "data": task.data_hash,
        "system": system,
        "models": {role: models.identity(spec) for role, spec in specs.items()},
        "epochs": epochs,
        "graded": graded,
        "control": control,
        "versions": {name: version(name) for name in ("cowest-bench", "lm-eval", "inspect-ai")},
    }
    if drafts:
        prompts = task.prompts(format)
        sampling = {"temperature": temperature, "seed": seed, "max_tokens": task.meta.draft_tokens}
        identity["drafts"] = {"prompts": prompts.model_dump(), **sampling}
    run_id = content_hash(identity)
    if (finished := results.find(run_id)) is not None:
        return finished

    started = time.monotonic()
    samples = _inspect_samples(
        task, task.prompts(format) if drafts else None, shuffled=control == "shuffled"
    )
    total = len(samples) * epochs
    steps = [collaborate(format, temperature, seed) if drafts else solo(SYSTEMS[system][0])]
    if progress is not None:
        steps.append(_reporting(progress, f"{system} {task.split}", total))
    log = _run_engine(
        InspectTask(
            name=task.name,
            dataset=MemoryDataset(samples),
            solver=steps,
            scorer=[
                task_metric(task.name, task.split, task.options),
                *([gold_logprob(_answer_prefix(task, specs))] if graded else []),
            ],
            version=str(task.meta.version),
        ),
        {str(role): models.open_model(spec) for role, spec in specs.items()},
        log_dir=str(results.logs / run_id),
        epochs=epochs,
        metadata={"run_id": run_id, "system": system, "split": task.split},
    )
    rows = _rows(log, run_id, task, specs, epochs)
    run = Run(
        run_id=run_id,
        task=task.name,
        domain=task.meta.domain or task.name,
        split=task.split,
        options=task.options,
        system=system,
        weak=specs.get("weak"),
        strong=specs.get("strong"),
        seed=seed,
        epochs=epochs,
        control=control,
        **_scored(task, rows),
        seconds=time.monotonic() - started,
        identity=identity,
        log=f"logs/{run_id}",
    )
    results.write(run, rows)
    return run


def _scored(task: Task, rows: list[SampleScore]) -> dict[str, Any]:
    """How many answers have a score, and what they come to; errors count in ``n_total`` alone."""
    scores = [row.score for row in rows if row.score is not None]
    first = [json.loads(row.metrics) for row in rows if row.epoch == 1 and row.metrics]
    return {
        "n_total": len(rows),
        "n_scored": len(scores),
        "score": sum(scores) / len(scores) if scores else None,
        "metrics": task.aggregate(first) if first else {},
    }


def _required(spec: ModelSpec | None, role: str, system: str) -> ModelSpec:
    if spec is None:
        raise ConfigError(f"System {system} needs a {role} model; give one with --{role} MODEL.")
    models.check(spec)
    return spec


def _answer_prefix(task: Task, specs: dict[Role, ModelSpec]) -> str:
    """Where the gold answer's log-probability is taken, if task and strong model allow it at all."""
    if task.meta.answer_prefix is None:
        raise ConfigError(
            f"Task {task.name} names no answer_prefix in its metadata, so the gold answer's "
            "log-probability cannot be taken; use the signal metric instead."
        )
    if not specs["strong"].is_local:
        raise ModelError(
            f"{specs['strong'].name} does not give the log-probability of a given answer; "
            "use the signal metric instead."
        )
    return task.meta.answer_prefix


_ROLES: dict[str, Callable[..., ChatMessage]] = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
}


def _inspect_samples(task: Task, prompts: Prompts | None, *, shuffled: bool) -> list[Sample]:
    """The questions as Inspect samples; the gold answer is in ``target``, for scorers only."""
    common: dict[str, Any] = {
        "generation": task.generation,
        "draft_tokens": task.meta.draft_tokens,
    }
    if prompts is not None:
        common["prompts"] = prompts.model_dump()
    questions = [sample.messages[-1]["content"] for sample in task.samples]
    half = len(questions) // 2
    return [
        Sample(
            id=sample.id,
            input=[_ROLES[m["role"]](content=m["content"]) for m in sample.messages],
            target=list(sample.accepted),
            metadata=common | ({"draft_for": questions[sample.id - half]} if shuffled else {}),
        )
        for sample in task.samples
    ]


def _run_engine(
    task: InspectTask,
    roles: dict[str, Any],
    *,
    log_dir: str,
    epochs: int,
    metadata: dict[str, Any],
) -> str:
    """Run a cell, or what is missing of it; returns the location of its log.

    The engine's defaults are changed where they would hide something: by default a failed sample is
    dropped from the mean, and a failed run raises nothing.
    """
    success, logs = eval_set(
        task,
        log_dir=log_dir,
        model_roles=roles,
        epochs=epochs,
        metadata=metadata,
        fail_on_error=False,
        retry_on_error=2,
        retry_attempts=1,
        retry_immediate=False,
        max_samples=4 * models.BATCH_SIZE,
        display="none",
        log_level="error",
        log_realtime=False,
        score_display=False,
        log_buffer=100,
        log_dir_allow_dirty=True,  # left by an interrupted run that was asked for otherwise
        ctl_server=False,
        acp_server=False,
    )
    finished = [log for log in logs if log.status == "success"]
    if not success or not finished:
        reason = next((log.error.message for log in logs if log.error), "no reason was given")
        raise RunError(f"The run {metadata['run_id']} did not finish: {reason}.")
    return finished[-1].location


def _rows(
    log: str, run_id: str, task: Task, specs: dict[Role, ModelSpec], epochs: int
) -> list[SampleScore]:
    """The log's samples as records, by epoch and in document order; none may be missing."""
    answered = {
        (int(sample.id), sample.epoch): sample
        for sample in read_eval_log_samples(log, all_samples_required=False)
    }
    return [
        _row(answered.get((sample.id, epoch)), run_id, epoch, task, sample.id, specs)
        for epoch in range(1, epochs + 1)
        for sample in task.samples
    ]


def _row(
    sample: EvalSample | None,
    run_id: str,
    epoch: int,
    task: Task,
    sample_id: int,
    specs: dict[Role, ModelSpec],
) -> SampleScore:
    asked = task.samples[sample_id]
    metadata = sample.metadata if sample else {}
    scores = (sample.scores if sample else None) or {}
    metric = scores.get("task_metric")
    logprob = scores.get("gold_logprob")
    error = sample.error.message if sample and sample.error else None
    calls = metadata.get("calls", {})
    return SampleScore(
        run_id=run_id,
        sample_id=sample_id,
        epoch=epoch,
        cluster=asked.cluster,
        question=asked.messages[-1]["content"],
        draft=metadata.get("draft"),
        output=sample.output.completion if sample and metric else None,
        answer=metric.answer if metric else None,
        gold=asked.target,
        score=metric.as_float() if metric else None,
        metrics=json.dumps((metric.metadata or {})["metrics"]) if metric else None,
        gold_logprob=logprob.as_float() if logprob else None,
        error=None if metric else (error or "no score was recorded"),
        cost=_cost(calls, specs),
        **{
            key: value
            for role in ("weak", "strong")
            for key, value in _usage(role, calls.get(role)).items()
        },
    )


def _usage(role: str, call: dict[str, Any] | None) -> dict[str, Any]:
    call = call or {}
    return {
        f"{role}_calls": int(bool(call)),
        f"{role}_input_tokens": call.get("input_tokens") or 0,
        f"{role}_output_tokens": call.get("output_tokens") or 0,
        f"{role}_seconds": call.get("seconds"),
    }


def _cost(calls: dict[str, dict[str, Any]], specs: dict[Role, ModelSpec]) -> float | None:
    """US dollars, or None unless every model that was called has a price."""
    total = 0.0
    for role, spec in specs.items():
        if spec.price is None:
            return None
        usage = _usage(role, calls.get(role))
        total += spec.price.input * usage[f"{role}_input_tokens"] / 1e6
        total += spec.price.output * usage[f"{role}_output_tokens"] / 1e6
    return total


def _reporting(progress: Progress, what: str, total: int) -> Solver:
    """A last solver that changes nothing and reports every sample that has come this far.

    (Inspect's hooks would do it too, but announce themselves on standard output in every run of
    everyone who has this package installed.)
    """
    done = 0
    progress(what, done, total)

    @solver
    def report() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            nonlocal done
            done += 1
            progress(what, done, total)
            return state

        return solve

    return report()
