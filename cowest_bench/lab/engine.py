"""The only caller of Inspect: asks what an evaluation still lacks, and records the answers.

An interrupted evaluation is resumed by the engine from the samples in its log; of one that ended with
errors, only the answers without a score are asked again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from inspect_ai import Task as InspectTask
from inspect_ai import eval_set
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalSample, read_eval_log_samples
from inspect_ai.model import Model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cowest_bench.config import ROLES, Limits, ModelSpec, Progress, Role
from cowest_bench.errors import BudgetError, RunError, redacted
from cowest_bench.lab.evaluate import Answer, Evaluate
from cowest_bench.lab.local import Local
from cowest_bench.models import budget as spending
from cowest_bench.models.endpoints import open_model
from cowest_bench.models.memory import BATCH_SIZE
from cowest_bench.store import Run, SampleScore, content_hash

ERROR_LENGTH = 1000  # characters of a message that a record keeps; the log has all of it


def complete(step: Evaluate, lab: Local, only: Collection[int] | None = None) -> Run:
    """Ask what an evaluation lacks, and store the run. Whoever calls this holds the step's claim.

    Args:
        step: What to evaluate.
        lab: Where, and within which limits.
        only: Ids of the samples that may be asked now. The others have rows that say so, and are asked
            by a later call.

    Raises:
        ConfigError: If the budget is in dollars and a model has no price.
        ModelError: If a model cannot be loaded.
        BudgetError: If the next call could have passed the budget; the answers so far are recorded.
        RunError: If the engine could not finish.
    """
    before, rows = _stored(step, lab)
    missing = step.missing(rows, lab.results, only)
    if before is not None and not missing:
        return before
    record = step.record(lab.results)  # now: another process may train its model again meanwhile
    specs = step.specs(lab.results)
    if lab.budget is not None:
        lab.budget.check(specs)
    started = time.monotonic()
    opened = {role: open_model(spec, lab.limits) for role, spec in specs.items()}
    reported: dict[str, set[str]] = {
        role: set(names) for role, names in (before.reported if before else {}).items()
    }
    with spending.within(lab.budget, specs):
        for engine_task, epochs, log_dir in _engine_tasks(step, lab, specs, missing, before):
            log = run_engine(
                engine_task,
                opened,
                limits=lab.limits,
                log_dir=log_dir,
                epochs=epochs,
                run_id=step.id,
            )
            for sample in read_eval_log_samples(log, all_samples_required=False):
                row = _row(step, specs, sample)
                rows[row.sample_id, row.epoch] = row
                _note_reported(sample, specs, reported)
    ordered = [rows.get(answer) or step.unanswered(answer, only) for answer in step.answers]
    scores = [row.score for row in ordered if row.score is not None]
    run = Run(
        **record,
        n_total=len(ordered),
        n_scored=len(scores),
        score=sum(scores) / len(scores) if scores else None,
        metrics=step.metrics(ordered, lab.results),
        reported={role: sorted(names) for role, names in reported.items()},
        attempts=before.attempts + 1 if before else 1,
        seconds=time.monotonic() - started + (before.seconds if before else 0.0),
        log=f"logs/{_log_folder(step, lab)}",
    )
    run = lab.results.write(run, ordered)
    if lab.budget is not None and lab.budget.exhausted:
        raise BudgetError(
            f"Stopped before passing the budget of {lab.budget}: {lab.budget.spent_calls} calls, "
            f"{lab.budget.spent_usd:.4f} usd. The answers so far are recorded; the same command with a "
            "larger budget continues from here."
        )
    return run


def _stored(step: Evaluate, lab: Local) -> tuple[Run | None, dict[Answer, SampleScore]]:
    """The run that is stored, with its rows; without them if its models have changed since."""
    run = step.run(lab.results)
    if run is None:
        return None, {}
    if run.made_from != step.made_from(lab.results):
        return run.model_copy(update={"reported": {}, "seconds": 0.0}), {}
    return run, {(row.sample_id, row.epoch): row for row in lab.results.samples(run)}


# --- what the engine is given ---------------------------------------------------------------------


def _log_folder(step: Evaluate, lab: Local) -> str:
    """One for each state of the trained models, so that the engine resumes no answers of another."""
    made_from = step.made_from(lab.results)
    return f"{step.id}-{content_hash(made_from)}" if made_from else step.id


def _engine_tasks(
    step: Evaluate,
    lab: Local,
    specs: Mapping[Role, ModelSpec],
    missing: Collection[Answer],
    before: Run | None,
) -> Iterator[tuple[InspectTask, int, str]]:
    """The evaluation as a task of the engine; where only a part is asked, a task for each epoch.

    Every attempt has a folder of its own, in which it is resumed: in that of an earlier one the engine
    would find everything done, errors included.
    """
    folder = lab.results.logs / _log_folder(step, lab)
    tell = _reporting(lab.progress, step.about, len(missing))
    samples = step.engine_samples(lab.results)
    for sample in samples:
        sample.metadata = {**(sample.metadata or {}), "sampling": sampling(specs)}
    if before is None and len(missing) == len(step.answers):
        yield _inspect_task(step, samples, tell), step.epochs, str(folder)
        return
    attempt = before.attempts + 1 if before else 1
    for epoch in sorted({epoch for _, epoch in missing}):
        ids = {sample_id for sample_id, missing_in in missing if missing_in == epoch}
        some = [sample for sample in samples if sample.id in ids]
        for sample in some:
            sample.metadata = {**(sample.metadata or {}), "epoch": epoch}
        place = folder / f"attempt-{attempt}-epoch-{epoch}"
        yield _inspect_task(step, some, tell), 1, str(place)


def _inspect_task(step: Evaluate, samples: list[Sample], report: Solver) -> InspectTask:
    return InspectTask(
        name=step.task.name,
        dataset=MemoryDataset(samples),
        solver=[step.solver(), report],
        scorer=step.scorers(),
        version=str(step.task.meta.version),
    )


def sampling(specs: Mapping[Role, ModelSpec]) -> dict[str, dict[str, Any]]:
    """The models' own sampling settings, for the solvers to read."""
    return {role: spec.sampling for role, spec in specs.items() if spec.sampling}


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

    Raises:
        RunError: If the engine did not finish.
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
        max_samples=4 * BATCH_SIZE,
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


def _row(step: Evaluate, specs: Mapping[Role, ModelSpec], sample: EvalSample) -> SampleScore:
    """A sample of the log as a row; without a score it has an error, never a zero."""
    error = sample.error.message if sample.error else "no score was recorded"
    calls: dict[str, list[dict[str, Any]]] = sample.metadata.get("calls", {})
    usage: dict[str, Any] = {}
    for role in ROLES:
        usage |= _usage(role, calls.get(role, []), specs.get(role))
    costs = [usage[f"{role}_cost"] for role in specs]
    epoch = int(sample.metadata.get("epoch", sample.epoch))
    row = replace(
        step.unanswered((int(sample.id), epoch)),
        draft=sample.metadata.get("draft"),
        error=redacted(_said(error))[:ERROR_LENGTH],
        cost=None if None in costs else sum(costs),
        **usage,
    )
    return step.scored(row, sample)


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
        f"{role}_cost": spending.price(spec.price if spec else None, *tokens) if known else None,
    }


def _note_reported(
    sample: EvalSample, specs: Mapping[Role, ModelSpec], reported: dict[str, set[str]]
) -> None:
    """Which model each endpoint says has answered."""
    for role, calls in sample.metadata.get("calls", {}).items():
        if not specs[role].is_local:
            reported.setdefault(role, set()).update(call["model"] for call in calls)
