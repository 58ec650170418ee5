"""Evaluate a system on a task: the only caller of the engine.

A cell is a task's split under one system with given models. Its run id is a hash of everything that
can change the number, so that a finished cell is never run again; an interrupted one is resumed by
the engine from the samples in its log, and of one that ended with errors only the questions without
a score are asked again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

from inspect_ai import Task as InspectTask
from inspect_ai import eval_set
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalSample, read_eval_log_samples
from inspect_ai.model import Model
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cowest_bench import models
from cowest_bench.config import ROLES, SYSTEMS, Limits, ModelSpec, Role
from cowest_bench.errors import (
    BudgetError,
    ConfigError,
    ModelError,
    RunError,
    redacted,
    suggestion,
)
from cowest_bench.lab.samples import inspect_samples
from cowest_bench.lab.scorers import gold_logprob, task_metric
from cowest_bench.models import budget
from cowest_bench.models.budget import Budget
from cowest_bench.store import NOT_ASKED, Results, Run, SampleScore, content_hash
from cowest_bench.systems import DRAFT_TEMPERATURE, collaborate, question_of, solo
from cowest_bench.tasks import Task
from cowest_bench.tasks.prompts import DEFAULT_FORMAT, FORMATS, Prompts

Progress = Callable[[str, int, int], None]  # what, how many samples or steps are done, of how many
ERROR_LENGTH = 1000  # characters of a message that a record keeps; the log has all of it
Answer = tuple[int, int]  # a question's id in its split, and which epoch


@dataclass(frozen=True)
class Cell:
    """A task's split under one system with given models: what a run is made of.

    Attributes:
        task: The task, on the split to be asked.
        system: ``weak``, ``strong``, ``collab`` or ``collab-tuned``.
        weak: The model in the role ``weak``, where the system has one.
        strong: The model in the role ``strong``, where the system has one.
        seed: Of the drafts' sampling.
        epochs: How often each question is asked, each time with another draft.
        format: How the weak model helps, a key of ``prompts.FORMATS``.
        temperature: Of the drafts.
        graded: Whether to record the gold answer's log-probability under the strong model.
        control: What is done on purpose to show that the effect is real, for the record; with
            ``shuffled``, every question gets the draft that was written for another one.

    Raises:
        ConfigError: If the system or the format is unknown, or a role has no model.
        ModelError: If a model cannot be there.
    """

    task: Task
    system: str
    weak: ModelSpec | None = None
    strong: ModelSpec | None = None
    seed: int = 0
    epochs: int = 1
    format: str = DEFAULT_FORMAT
    temperature: float = DRAFT_TEMPERATURE
    graded: bool = False
    control: str | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            allowed = suggestion(self.format, FORMATS)
            raise ConfigError(f"There is no interaction format {self.format}; {allowed}")
        _ = self.specs

    @cached_property
    def specs(self) -> dict[Role, ModelSpec]:
        """The model in every role that the system has."""
        return specs_of(self.system, self.weak, self.strong)

    @property
    def drafts(self) -> bool:
        """Whether the weak model drafts for the strong one."""
        return {"weak", "strong"} <= set(self.specs)

    @cached_property
    def prompts(self) -> Prompts:
        """What the two models are asked, where one drafts for the other."""
        return self.task.prompts(self.format)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that can change the number."""
        identity: dict[str, Any] = {
            "task": self.task.name,
            "split": self.task.split,
            "data": self.task.data_hash,
            "system": self.system,
            "models": {role: models.identity(spec) for role, spec in self.specs.items()},
            "epochs": self.epochs,
            "graded": self.graded,
            "control": self.control,
            "versions": {name: version(name) for name in ("cowest-bench", "lm-eval", "inspect-ai")},
        }
        if self.drafts:
            identity["drafts"] = {
                "prompts": self.prompts.model_dump(),
                "temperature": self.temperature,
                "seed": self.seed,
                "max_tokens": self.task.meta.draft_tokens,
            }
        elif self.task.generation.get("do_sample"):
            identity["seed"] = self.seed
        return identity

    @cached_property
    def run_id(self) -> str:
        """Hash of ``identity``."""
        return content_hash(self.identity)

    @cached_property
    def answers(self) -> list[Answer]:
        """The answers that are asked for, by epoch and in document order."""
        epochs = range(1, self.epochs + 1)
        return [(sample.id, epoch) for epoch in epochs for sample in self.task.samples]

    def samples(self) -> list[Sample]:
        """The questions as the engine takes them."""
        samples = inspect_samples(self.task, formats=(self.format,) if self.drafts else ())
        if self.control == "shuffled":
            questions = [question_of(sample.input) for sample in samples]  # type: ignore[arg-type]
            for i, sample in enumerate(samples):
                other = questions[i - len(samples) // 2]
                sample.metadata = {**(sample.metadata or {}), "draft_for": other}
        return samples

    def solver(self) -> Solver:
        """What the engine does with each question."""
        return solver_for(self.system, self.format, self.temperature, self.seed)

    def scorers(self) -> list[Scorer]:
        """How the engine scores an answer; the first gives the score."""
        task = self.task
        graded = [gold_logprob(_answer_prefix(task, self.specs))] if self.graded else []
        return [task_metric(task.name, task.split, task.options), *graded]

    def unanswered(self, answer: Answer, only: Collection[int] | None = None) -> SampleScore:
        """The record of an answer of which the log knows nothing; it may have been left for later."""
        sample_id, epoch = answer
        asked_now = only is None or sample_id in only
        asked = self.task.samples[sample_id]
        return SampleScore(
            run_id=self.run_id,
            sample_id=sample_id,
            epoch=epoch,
            cluster=asked.cluster,
            question=next(m["content"] for m in reversed(asked.messages) if m["role"] == "user"),
            gold=asked.target,
            error="no answer was recorded" if asked_now else NOT_ASKED,
        )

    def record(self, sample: EvalSample) -> SampleScore:
        """A sample of the log as a record; without a score it has an error, never a zero."""
        scores = sample.scores or {}
        metric, logprob = scores.get("task_metric"), scores.get("gold_logprob")
        if metric is None:
            return self.failed(sample)
        return replace(
            self.failed(sample),
            output=sample.output.completion,
            answer=metric.answer,
            score=metric.as_float(),
            metrics=json.dumps((metric.metadata or {})["metrics"]),
            gold_logprob=logprob.as_float() if logprob else None,
            error=None,
        )

    def failed(self, sample: EvalSample) -> SampleScore:
        """What is to be recorded in any case: the draft, what it took, why there is no score."""
        error = sample.error.message if sample.error else "no score was recorded"
        calls: dict[str, list[dict[str, Any]]] = sample.metadata.get("calls", {})
        usage: dict[str, Any] = {}
        for role in ROLES:
            usage |= _usage(role, calls.get(role, []), self.specs.get(role))
        costs = [usage[f"{role}_cost"] for role in self.specs]
        epoch = int(sample.metadata.get("epoch", sample.epoch))
        return replace(
            self.unanswered((int(sample.id), epoch)),
            draft=sample.metadata.get("draft"),
            error=redacted(_said(error))[:ERROR_LENGTH],
            cost=None if None in costs else sum(costs),
            **usage,
        )

    def metrics(self, rows: Sequence[SampleScore]) -> dict[str, float]:
        """All metrics over the split as lm-eval aggregates them; with several epochs, of the first."""
        first = [json.loads(row.metrics) for row in rows if row.epoch == 1 and row.metrics]
        return self.task.aggregate(first) if first else {}


def specs_of(
    system: str, weak: ModelSpec | None, strong: ModelSpec | None
) -> dict[Role, ModelSpec]:
    """The model in every role that a system has.

    Raises:
        ConfigError: If the system is unknown or a role has no model.
        ModelError: If a model cannot be there.
    """
    if system not in SYSTEMS:
        raise ConfigError(f"There is no system {system}; {suggestion(system, SYSTEMS)}")
    given = {"weak": weak, "strong": strong}
    specs = {}
    for role in SYSTEMS[system]:
        spec = given[role]
        if spec is None:
            raise ConfigError(
                f"System {system} needs a {role} model; give one with --{role} MODEL."
            )
        models.check(spec)
        specs[role] = spec
    return specs


def solver_for(system: str, format: str, temperature: float, seed: int) -> Solver:
    """The solver that a system is."""
    if len(SYSTEMS[system]) == 2:
        return collaborate(format, temperature, seed)
    return solo(SYSTEMS[system][0], seed)


def sampling(specs: Mapping[Role, ModelSpec]) -> dict[str, dict[str, Any]]:
    """What models say of their own sampling, for the solvers to read."""
    return {role: spec.sampling for role, spec in specs.items() if spec.sampling}


def evaluate(
    task: Task,
    system: str,
    *,
    results: Results,
    limits: Limits | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
    **cell: Any,
) -> Run:
    """Answer and score every question of a task's split with a system, or return the finished run.

    A run that ended with errors is completed: only questions without a score are asked again.

    Args:
        task: The task, on the split to be asked.
        system: ``weak``, ``strong``, ``collab`` or ``collab-tuned``.
        results: Where the run is recorded.
        limits: How long to wait for endpoints.
        budget: What may be spent.
        progress: Told how many samples are done.
        **cell: ``weak``, ``strong``, ``seed``, ``epochs``, ``format``, ``temperature``, ``graded``
            and ``control`` of the ``Cell``.

    Raises:
        ConfigError: If the system is unknown or a role has no model.
        ModelError: If a model cannot be loaded.
        BudgetError: If the next call could have passed the budget; what was answered is recorded.
        RunError: If the engine could not finish.
    """
    return complete(Cell(task, system, **cell), results, limits, budget, progress)


def complete(
    cell: Cell,
    results: Results,
    limits: Limits | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
    only: Collection[int] | None = None,
) -> Run:
    """Run a cell, or what is missing of it; arguments and errors as for ``evaluate``.

    ``only`` are the ids of the questions that may be asked now. The others have rows that say so, and
    are asked by a later call. Processes that want the same cell at the same time run it once.
    """
    finished, _, missing = _stored(cell, results, only)
    if finished is not None and not missing:
        return finished
    with results.claimed(cell.run_id):
        return _complete(cell, results, limits, budget, progress, only)


def _stored(
    cell: Cell, results: Results, only: Collection[int] | None
) -> tuple[Run | None, dict[Answer, SampleScore], list[Answer]]:
    """The cell's run, if there is one, with its rows, and the answers that it lacks."""
    run = results.find(cell.run_id)
    rows = {(row.sample_id, row.epoch): row for row in results.samples(run)} if run else {}
    wanted = [answer for answer in cell.answers if only is None or answer[0] in only]
    return run, rows, [each for each in wanted if each not in rows or rows[each].error]


def _complete(
    cell: Cell,
    results: Results,
    limits: Limits | None,
    budget: Budget | None,
    progress: Progress | None,
    only: Collection[int] | None,
) -> Run:
    before, rows, missing = _stored(cell, results, only)
    if before is not None and not missing:  # another process has just run it
        return before
    if budget is not None:
        budget.check(cell.specs)
    started = time.monotonic()
    limits = limits or Limits()
    told = progress or (lambda what, done, total: None)
    opened = {role: models.open_model(spec, limits) for role, spec in cell.specs.items()}
    reported: dict[str, set[str]] = {}
    with budget.within(budget, cell.specs):
        for engine_task, epochs, log_dir in _engine_tasks(cell, results, missing, before, told):
            log = run_engine(
                engine_task,
                opened,
                limits=limits,
                log_dir=log_dir,
                epochs=epochs,
                run_id=cell.run_id,
            )
            for sample in read_eval_log_samples(log, all_samples_required=False):
                row = cell.record(sample)
                rows[row.sample_id, row.epoch] = row
                _note_reported(sample, cell, reported)
    ordered = [rows.get(answer) or cell.unanswered(answer, only) for answer in cell.answers]
    scores = [row.score for row in ordered if row.score is not None]
    for role, names in (before.reported if before else {}).items():
        reported.setdefault(role, set()).update(names)
    run = Run(
        run_id=cell.run_id,
        task=cell.task.name,
        domain=cell.task.meta.domain or cell.task.name,
        suite=cell.task.meta.suite,
        split=cell.task.split,
        options=cell.task.options,
        system=cell.system,
        format=cell.format if cell.drafts else None,
        weak=cell.specs.get("weak"),
        strong=cell.specs.get("strong"),
        evaluator=cell.specs.get("evaluator"),
        reported={role: sorted(names) for role, names in reported.items()},
        seed=cell.seed,
        epochs=cell.epochs,
        control=cell.control,
        n_total=len(ordered),
        n_scored=len(scores),
        score=sum(scores) / len(scores) if scores else None,
        metrics=cell.metrics(ordered),
        attempts=before.attempts + 1 if before else 1,
        seconds=time.monotonic() - started + (before.seconds if before else 0.0),
        identity=cell.identity,
        log=f"logs/{cell.run_id}",
    )
    results.write(run, ordered)
    if budget is not None and budget.exhausted:
        raise BudgetError(
            f"Stopped before passing the budget of {budget}: {budget.spent_calls} calls, "
            f"{budget.spent_usd:.4f} usd; what was answered is kept, a larger budget goes on from here."
        )
    return run


# --- what the engine is given ---------------------------------------------------------------------


def _engine_tasks(
    cell: Cell,
    results: Results,
    missing: Collection[Answer],
    before: Run | None,
    progress: Progress,
) -> Iterator[tuple[InspectTask, int, str]]:
    """The cell as a task of the engine; where only a part is to be asked, a task for each epoch.

    Every attempt has a folder of its own, in which it is resumed: in that of an earlier one the engine
    would find everything done, errors included.
    """
    folder = results.logs / cell.run_id
    tell = _reporting(progress, f"{cell.system} {cell.task.split}", len(missing))
    samples = cell.samples()
    for sample in samples:
        sample.metadata = {**(sample.metadata or {}), "sampling": sampling(cell.specs)}
    if before is None and len(missing) == len(cell.answers):
        yield _inspect_task(cell, samples, tell), cell.epochs, str(folder)
        return
    attempt = before.attempts + 1 if before else 1
    for epoch in sorted({epoch for _, epoch in missing}):
        ids = {sample_id for sample_id, missing_in in missing if missing_in == epoch}
        some = [sample for sample in samples if sample.id in ids]
        for sample in some:
            sample.metadata = {**(sample.metadata or {}), "epoch": epoch}
        place = folder / f"attempt-{attempt}-epoch-{epoch}"
        yield _inspect_task(cell, some, tell), 1, str(place)


def _inspect_task(cell: Cell, samples: list[Sample], report: Solver) -> InspectTask:
    return InspectTask(
        name=cell.task.name,
        dataset=MemoryDataset(samples),
        solver=[cell.solver(), report],
        scorer=cell.scorers(),
        version=str(cell.task.meta.version),
    )


def _answer_prefix(task: Task, specs: Mapping[Role, ModelSpec]) -> str:
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


def run_engine(
    task: InspectTask,
    roles: Mapping[Role, Model],
    *,
    limits: Limits,
    log_dir: str,
    epochs: int,
    run_id: str,
) -> str:
    """Run a task of the engine, or what is missing of it; returns the location of its log.

    The engine's defaults are changed where they would hide something: by default a failed sample is
    dropped from the mean, and a failed run raises nothing.
    """
    success, logs = eval_set(
        task,
        log_dir=log_dir,
        model_roles={str(role): model for role, model in roles.items()},
        epochs=epochs,
        metadata={"run_id": run_id},
        fail_on_error=False,
        retry_on_error=limits.sample_retries,
        retry_attempts=1,
        retry_immediate=False,
        max_samples=4 * models.BATCH_SIZE,
        display="none",
        log_level="critical",  # every failed sample has its row
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
        raise RunError(f"The run {run_id} did not finish: {redacted(reason)}.")
    return finished[-1].location


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


# --- what the engine leaves -----------------------------------------------------------------------


def _said(message: str) -> str:
    """What an error of ours says, without the name of its class around it."""
    ours = re.fullmatch(r"(?:Model|Budget|Task)Error\((['\"])(.*)\1\)", message, re.DOTALL)
    return ours[2] if ours else message


def _usage(role: Role, calls: list[dict[str, Any]], spec: ModelSpec | None) -> dict[str, Any]:
    """What the calls of a role took; None where the endpoint did not say, or its price is not known."""

    def total(key: str) -> Any:
        values = [call[key] for call in calls]
        return None if None in values else sum(values)

    tokens = (total("input"), total("output"))
    priced = spec is None or spec.is_free or spec.price is not None
    known = priced and None not in tokens
    return {
        f"{role}_calls": len(calls),
        f"{role}_input_tokens": tokens[0],
        f"{role}_output_tokens": tokens[1],
        f"{role}_seconds": total("seconds") if calls else None,
        f"{role}_cost": budget.price(spec.price if spec else None, *tokens) if known else None,
    }


def _note_reported(sample: EvalSample, cell: Cell, reported: dict[str, set[str]]) -> None:
    """Which model each endpoint says has answered."""
    for role, calls in sample.metadata.get("calls", {}).items():
        if not cell.specs[role].is_local:
            reported.setdefault(role, set()).update(call["model"] for call in calls)
