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
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeAlias

from pydantic import Field, field_validator

from cowest_bench import models
from cowest_bench import plan as plans
from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError, CowestError, RunError, redacted
from cowest_bench.lab import workers
from cowest_bench.models.budget import Budget
from cowest_bench.plan import BasePlan, Estimate, Plan
from cowest_bench.store import Results, Run
from cowest_bench.tasks import Task

SINGLE = ("weak", "strong")
REASON_LENGTH = 300  # characters of an error that is not ours; the workers' log has all of it
Key = tuple[str, int | None, int | None]  # task, weak and strong model by their places in the lists
Job: TypeAlias = workers.Job[Key, dict[str, Run]]
Outcome: TypeAlias = workers.Outcome[Key, dict[str, Run]]


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


def jobs(sweep: Sweep, results: Results) -> list[Job]:
    """The jobs, in the order in which models are loaded the fewest times.

    Raises:
        TaskError: If a task cannot be loaded.
    """
    tasks = {task.name: task for task in sweep.plan().loaded()}
    weak, strong = range(len(sweep.weak)), range(len(sweep.strong))
    keys: list[Key] = [(task, i, None) for i in weak for task in tasks]
    for j in strong:
        keys += [(task, None, j) for task in tasks]
        keys += [(task, i, j) for i in weak for task in tasks]
    return [_job(_part(sweep, tasks[key[0]], key), key, about(sweep, key), results) for key in keys]


def _part(sweep: Sweep, task: Task, key: Key) -> Plan:
    """What one job is about."""
    _, weak, strong = key
    changes: dict[str, Any] = {"tasks": (task.name,), "options": task.options}
    if weak is not None:
        changes |= {"weak": sweep.weak[weak], "systems": ("weak",)}
    if strong is not None:
        changes |= {"strong": sweep.strong[strong], "systems": ("strong",), "method": None}
    if weak is not None and strong is not None:
        changes |= {"systems": sweep.collaborative, "method": sweep.method}
    if sweep.method:  # it has two models, though its first stage is about one; it asks test once
        changes = {"strong": sweep.strong[0], "epochs": 1} | changes
    return sweep.plan(**changes)


def _job(plan: Plan, key: Key, name: str, results: Results) -> Job:
    """A pairing needs what is done with each of its models alone."""
    task, weak, strong = key
    needs = frozenset() if None in key else frozenset({(task, weak, None), (task, None, strong)})
    return workers.Job(key, name, partial(work, plan, results, name), needs)


def about(sweep: Sweep, key: Key) -> str:
    """A job's name."""
    task, weak, strong = key
    names = [sweep.weak_names[weak]] if weak is not None else []
    names += [sweep.strong_names[strong]] if strong is not None else []
    return f"{' + '.join(names)} on {task}"


def work(plan: Plan, results: Results, name: str, who: str) -> dict[str, Run]:
    """Do a job, in a worker process; returns its runs by system.

    Raises:
        CowestError: Whatever went wrong, as a sentence; what is not ours is printed as well.
    """
    models.forget_all_but(plan.models.values())

    def progress(what: str, done: int, total: int) -> None:
        workers.tell(who, f"{name}: {what}", done, total)

    try:
        budget = _budget(plan.budget) if plan.budget else None
        runs = plans.run(plan, results, lambda domain: progress, budget)
        return {run.system: run for run in runs}
    except CowestError:
        raise
    except Exception as error:  # noqa: BLE001 (the other jobs go on)
        traceback.print_exc()
        reason = redacted(" ".join(str(error).split()))[:REASON_LENGTH]
        raise RunError(f"{type(error).__name__}: {reason}") from None


@cache
def _budget(text: str) -> Budget:
    """The one budget of this process."""
    return Budget.parse(text)


def run(
    sweep: Sweep,
    results: Results,
    size: int | None = None,
    progress: workers.Progress | None = None,
) -> Outcome:
    """Run what of a sweep is not there yet; returns the test runs of every job, by system.

    Args:
        sweep: What to run.
        results: Where it is recorded.
        size: How many processes; see ``default_size``.
        progress: Told what each of them does, and how many jobs are begun.

    Raises:
        ConfigError: If a budget is to hold for several processes, or cannot be read.
        TaskError: If a task cannot be loaded.
    """
    if sweep.budget:
        Budget.parse(sweep.budget)
        if (size or 1) > 1:
            raise ConfigError("A budget is held by one process; leave out --workers, or --budget.")
    todo = jobs(sweep, results)
    size = min(size or default_size(sweep), len(todo))
    return workers.run(
        todo,
        size,
        restart=not sweep.budget,  # another process would not know what was spent
        progress=progress,
        threads=sweep.threads or max(1, _cores() // size),
        log=results.logs / "sweep.log",
    )


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
