"""Sweeps: every weak model with every strong one on every task, each baseline run once.

    tasks: [cowest_medmcqa, cowest_ifqa]
    weak: [hf/ORG/SMALL, hf/ORG/SMALLER]
    strong: [{name: openai/gpt-4o, price: {input: 2.5, output: 10}}, hf/ORG/LARGE]
    systems: [weak, strong, collab]

A sweep is cut into jobs, plans of one task and one pairing at most: first every weak model alone
(specialised, where there is a method), then by strong model: it alone, and its pairings. So a worker
goes on with the strong model that it has loaded. A job is a plain function of picklable arguments.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from cowest_bench import models, workers
from cowest_bench import plan as plans
from cowest_bench.config import ModelSpec
from cowest_bench.errors import BudgetError, ConfigError, CowestError, RunError, redacted
from cowest_bench.plan import BasePlan, Estimate, Plan
from cowest_bench.records import Results, Run
from cowest_bench.spending import Budget

SINGLE = ("weak", "strong")
Key = tuple[str, int | None, int | None]  # task, weak and strong model by their places in the lists


class Sweep(BasePlan):
    """A plan with several weak and several strong models."""

    weak: tuple[ModelSpec, ...] = Field(min_length=1)
    strong: tuple[ModelSpec, ...] = Field(min_length=1)
    threads: int | None = Field(None, ge=1)
    """That each worker computes on; by default they share the cores. Sums of floats depend on it."""

    @field_validator("weak", "strong", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One model is a list of one."""
        return [value] if isinstance(value, str | dict | ModelSpec) else value

    @classmethod
    def load(cls, path: Path | None, changes: Any = None) -> Self:
        """Read a sweep; as ``Plan.load``.

        Raises:
            ConfigError: Also if a system is missing that a gain needs, or a model is there twice.
        """
        sweep = super().load(path, changes)
        if not {*SINGLE} < {*sweep.systems}:
            raise ConfigError(
                "A sweep shows what collaboration gains over each model alone; its systems must be "
                "weak, strong, and collab or collab-tuned or both."
            )
        _ = sweep.weak_names, sweep.strong_names
        return sweep

    @property
    def collaborative(self) -> tuple[str, ...]:
        """The systems of which there is one for each pairing."""
        return tuple(name for name in dict.fromkeys(self.systems) if name not in SINGLE)

    @cached_property
    def weak_names(self) -> tuple[str, ...]:
        """What tells the weak models apart in tables, whatever they are trained to here."""
        return _names("weak", self.weak, [spec.base_label for spec in self.weak])

    @cached_property
    def strong_names(self) -> tuple[str, ...]:
        """What tells the strong models apart in tables."""
        return _names("strong", self.strong, [spec.label for spec in self.strong])

    def plan(self, **changes: Any) -> Plan:
        """The plan of a part of it."""
        shared = {name: getattr(self, name) for name in BasePlan.model_fields}
        return Plan(**shared | changes)

    def pairings(self) -> Iterator[Plan]:
        """The plan of each pairing, as ``cowest run`` would run it."""
        return (self.plan(weak=weak, strong=strong) for strong in self.strong for weak in self.weak)


def _names(role: str, specs: Sequence[ModelSpec], labels: Sequence[str]) -> tuple[str, ...]:
    """Labels where they are unique, else whole names."""
    count = Counter(labels)
    names = [
        label if count[label] == 1 else spec.name for spec, label in zip(specs, labels, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"Two {role} models of the sweep are called {name}; name each model once."
            )
    return tuple(names)


# --- jobs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a worker does at a time.

    Attributes:
        plan: Some systems of one task.
        key: Its task, and the models that it is about; a weak model alone has no strong one.
        name: For people.
    """

    plan: Plan
    key: Key
    name: str

    @property
    def needs(self) -> set[Key]:
        """What has to be done before: of a pairing, both models alone."""
        task, weak, strong = self.key
        if weak is None or strong is None:
            return set()
        return {(task, weak, None), (task, None, strong)}


def jobs(sweep: Sweep) -> list[Job]:
    """The jobs, in the order in which models are loaded the fewest times.

    Raises:
        TaskError: If a task cannot be loaded.
    """
    tasks = [
        (task.name, partial(sweep.plan, tasks=(task.name,), options=task.options))
        for task in sweep.plan().loaded()
    ]
    alone = {"strong": sweep.strong[0]} if sweep.method else {}  # a method has two models
    found = []
    for i, weak in enumerate(sweep.weak):
        for task, plan in tasks:
            name = f"{sweep.weak_names[i]} on {task}"
            found.append(Job(plan(systems=("weak",), weak=weak, **alone), (task, i, None), name))
    # As the method asks it: each question once.
    once = {"method": None} | ({"epochs": 1} if sweep.method else {})
    for j, strong in enumerate(sweep.strong):
        for task, plan in tasks:
            name = f"{sweep.strong_names[j]} on {task}"
            single = plan(systems=("strong",), strong=strong, **once)
            found.append(Job(single, (task, None, j), name))
        for i, weak in enumerate(sweep.weak):
            for task, plan in tasks:
                name = f"{sweep.weak_names[i]} + {sweep.strong_names[j]} on {task}"
                both = plan(systems=sweep.collaborative, weak=weak, strong=strong)
                found.append(Job(both, (task, i, j), name))
    return found


def work(job: Job, results: Results, who: str) -> list[Run]:
    """Do a job, in a worker process.

    Raises:
        CowestError: Whatever went wrong, as a sentence; where the error is not ours, the rest of it is
            printed.
    """
    models.forget_all_but([spec for spec in (job.plan.weak, job.plan.strong) if spec])

    def progress(what: str, done: int, total: int) -> None:
        workers.tell(who, f"{job.name}: {what}", done, total)

    try:
        budget = _budget(job.plan.budget) if job.plan.budget else None
        return list(plans.run(job.plan, results, lambda domain: progress, budget))
    except CowestError:
        raise
    except Exception as error:  # noqa: BLE001 (the other jobs go on)
        traceback.print_exc()
        reason = redacted(" ".join(str(error).split()))[:300]
        raise RunError(f"{type(error).__name__}: {reason}") from None


@cache
def _budget(text: str) -> Budget:
    """The one budget of this process."""
    return Budget.parse(text)


# --- running them ---------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a sweep has come to.

    Attributes:
        sweep: What was asked for.
        runs: The test run of each system, by task, weak and strong model.
        failures: Why a job was not done, by the same.
    """

    sweep: Sweep
    runs: dict[Key, dict[str, Run]] = field(default_factory=dict)
    failures: dict[Key, str] = field(default_factory=dict)


def run(
    sweep: Sweep,
    results: Results,
    size: int | None = None,
    progress: workers.Progress | None = None,
) -> Outcome:
    """Run what of a sweep is not there yet; a job that fails does not stop the others.

    Args:
        sweep: What to run.
        results: Where it is recorded.
        size: How many processes; see ``default_size``.
        progress: Told what each of them does, and how many jobs are done.

    Raises:
        ConfigError: If a budget is to hold for several processes.
        TaskError: If a task cannot be loaded.
    """
    if sweep.budget:
        Budget.parse(sweep.budget)
        if (size or 1) > 1:
            raise ConfigError("A budget is held by one process; leave out --workers, or --budget.")
    todo = jobs(sweep)
    size = min(size or default_size(sweep), len(todo))
    outcome = Outcome(sweep)
    while todo:  # a pool is broken when one of its processes is killed
        with workers.pool(
            size,
            threads=sweep.threads or max(1, _cores() // size),
            log=results.logs / "sweep.log",
            progress=progress,
        ) as pool:
            _work_off(todo, pool, size, results, outcome, progress)
    return outcome


def default_size(sweep: Sweep) -> int:
    """How many processes there are unless it is said.

    One with a budget, which one process holds; one if nothing is computed here, since an evaluation
    asks endpoints concurrently by itself; one with an accelerator, which would have to hold every
    model several times. Otherwise one for each core.
    """
    local = sweep.method or any(spec.is_local for spec in (*sweep.weak, *sweep.strong))
    if sweep.budget or not local:
        return 1
    import torch

    return 1 if torch.accelerator.is_available() else _cores()


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work_off(
    todo: list[Job],
    pool: ProcessPoolExecutor,
    size: int,
    results: Results,
    outcome: Outcome,
    progress: workers.Progress | None,
) -> None:
    """Do the jobs in their order, each when what it needs is done, until none is left to do."""
    running: dict[Future[list[Run]], tuple[Job, str]] = {}
    idle = [f"worker {n}" for n in range(size, 0, -1)]
    total = len(todo) + len(outcome.runs) + len(outcome.failures)
    while todo or running:
        for job in [*todo]:
            if failed := [need for need in job.needs if need in outcome.failures]:
                reason = f"not tried, since {about(outcome.sweep, failed[0])} failed"
                outcome.failures[job.key] = reason
                todo.remove(job)
            elif idle and job.needs <= outcome.runs.keys():
                who = idle.pop()
                running[pool.submit(work, job, results, who)] = job, who
                todo.remove(job)
        if progress:
            progress("sweep", "jobs", len(outcome.runs) + len(outcome.failures), total)
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job, who = running.pop(future)
            idle.append(who)
            try:
                outcome.runs[job.key] = {run.system: run for run in future.result()}
            except BudgetError as error:
                outcome.failures |= {other.key: "not tried, no budget is left" for other in todo}
                outcome.failures[job.key] = str(error)
                todo.clear()
            except CowestError as error:
                outcome.failures[job.key] = str(error)
            except BrokenProcessPool:
                reason = "a worker process was killed, perhaps for want of memory"
                outcome.failures |= {
                    lost.key: reason for lost, _ in [(job, who), *running.values()]
                }
                return


def about(sweep: Sweep, key: Key) -> str:
    """A job for people."""
    task, weak, strong = key
    names = [sweep.weak_names[weak]] if weak is not None else []
    names += [sweep.strong_names[strong]] if strong is not None else []
    return f"{' + '.join(names)} on {task}"


# --- what it will take ----------------------------------------------------------------------------


def estimate(sweep: Sweep, results: Results) -> list[tuple[Plan, Estimate]]:
    """The cells of a sweep with their calls and tokens, each with a plan that it belongs to.

    What several pairings share, a model alone, is there once.

    Raises:
        TaskError: See ``plan.estimate``.
    """
    measured = plans.tokens_measured(results)
    seen, cells = set(), []
    for plan in sweep.pairings():
        for cell in plans.estimate(plan, results, measured):
            asked = tuple(plan.models[role].model_dump_json() for role in cell.calls)
            shared = (cell.task, cell.split, cell.system, asked) if len(asked) == 1 else None
            if shared is None or shared not in seen:
                cells.append((plan, cell))
            seen.add(shared)
    return cells
