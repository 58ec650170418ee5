"""Sweeps: every weak model with every strong one on every task, each shared step made once.

    tasks: [cowest_medmcqa, cowest_ifqa]
    weak: [hf/ORG/SMALL, hf/ORG/SMALLER]
    strong: [{name: openai/gpt-4o, price: {input: 2.5, output: 10}}, hf/ORG/LARGE]
    systems: [weak, strong, collab]

A sweep is the plans of all its pairings, carried out by one ``Planned`` lab: a step that several
pairings need has one id, and is there once. Processes then make the steps.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from cowest_bench.config import Limits, ModelSpec
from cowest_bench.errors import ConfigError, CowestError, RunError, redacted
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.local import Local
from cowest_bench.lab.planned import Planned
from cowest_bench.lab.step import Step, origin_of
from cowest_bench.lab.train import accelerated
from cowest_bench.lab.workers import Job, WorkerProgress, do_jobs, tell
from cowest_bench.models.budget import Budget
from cowest_bench.plan import BasePlan, Plan, evaluations
from cowest_bench.store import Results, Run

Cell = tuple[str, int | None, int | None, str]  # task, places of the weak and strong model, system
REASON_LENGTH = 300  # characters of an error that is not ours; the workers' log has all of it


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
        """As ``Plan.load``; also refuses that a system is missing which a gain needs, or a model twice."""
        sweep = super().load(path, changes)
        compared = [system.compared_with for system in sweep.found_systems]
        single = dict.fromkeys(name for names in compared for name in names)
        missing = [name for name in single if name not in sweep.systems]
        if missing or not any(compared):
            raise ConfigError(
                "A sweep shows what collaboration gains over each model alone; its systems must be "
                f"{', '.join(missing) or 'weak, strong'}, and at least one in which models collaborate, "
                "such as collab."
            )
        _ = sweep.weak_names, sweep.strong_names
        return sweep

    @cached_property
    def weak_names(self) -> tuple[str, ...]:
        """What tells the weak models apart in tables, whatever they are trained to here."""
        return _names("weak", self.weak, [spec.base_label for spec in self.weak])

    @cached_property
    def strong_names(self) -> tuple[str, ...]:
        """What tells the strong models apart in tables."""
        return _names("strong", self.strong, [spec.label for spec in self.strong])


def _names(role: str, specs: Sequence[ModelSpec], labels: Sequence[str]) -> tuple[str, ...]:
    """Labels where they are unique, else whole names."""
    names = [
        label if labels.count(label) == 1 else spec.name
        for spec, label in zip(specs, labels, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"Two {role} models of the sweep are called {name}; name each model once."
            )
    return tuple(names)


@dataclass
class SweepPlan:
    """The steps of a sweep: by id, with what each is called, and the evaluation of every cell."""

    lab: Planned
    cells: dict[Cell, Evaluate] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def planned(sweep: Sweep, *, stated: bool = False) -> SweepPlan:
    """Every step of a sweep, none of them made; arguments and errors as for ``plan.planned``."""
    found = SweepPlan(Planned(offline=stated))
    shared = {name: getattr(sweep, name) for name in BasePlan.model_fields}
    # One strong model after the other, so that each stays in memory as long as possible.
    for j, i in product(range(len(sweep.strong)), range(len(sweep.weak))):
        plan = Plan(**shared, weak=sweep.weak[i], strong=sweep.strong[j])
        names = {"weak": sweep.weak_names[i], "strong": sweep.strong_names[j]}
        for task in plan.loaded(stated=stated):
            for step in evaluations(plan, task, found.lab):
                roles = step.system.roles
                place = (i if "weak" in roles else None, j if "strong" in roles else None)
                found.cells[task.name, *place, step.system.name] = step
            for key, made in found.lab.steps.items():
                asked = [names.get(role, role) for role in made.models]
                who = asked[0] if len(asked) == 1 else " + ".join(names.values())
                found.names.setdefault(key, f"{who} on {task.name}: {made.about}")
    return found


@dataclass(frozen=True)
class Swept:
    """What has become of a sweep."""

    found: dict[Cell, Run]
    failed: dict[str, str]
    tasks: tuple[str, ...]


def run(
    sweep: Sweep, results: Results, size: int | None = None, progress: WorkerProgress | None = None
) -> Swept:
    """Make what of a sweep is not stored yet, in ``size`` processes; raises what is known to fail.

    By default there is one process for each core. There is one with a budget, which one process holds;
    one if nothing is computed here, since an evaluation asks endpoints concurrently by itself; and one
    with an accelerator, which would have to hold every model several times.
    """
    if sweep.budget and (size or 1) > 1:
        raise ConfigError("A budget is held by one process; leave out --workers, or --budget.")
    plan = planned(sweep)
    todo = {key: step for key, step in plan.lab.steps.items() if not step.is_made(results)}
    jobs = {
        key: Job(
            plan.names[key],
            partial(_make, step, results, sweep.limits, sweep.budget, plan.names[key]),
            frozenset(each.id for each in step.inputs if each.id in todo),
        )
        for key, step in todo.items()
    }
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    if size is None:
        models = [model for step in plan.lab.steps.values() for model in step.models.values()]
        computed_here = any(origin_of(model).is_local for model in models)
        size = 1 if sweep.budget or not computed_here or accelerated() else cores
    size = max(1, min(size, len(jobs)))
    failed = do_jobs(
        jobs,
        size,
        restart=sweep.budget is None,  # another process would not know what was spent
        progress=progress,
        threads=sweep.threads or max(1, cores // size),
        log=results.logs / "workers.log",
    )
    found = {cell: step.run(results) for cell, step in plan.cells.items()}
    return Swept(
        {cell: made for cell, made in found.items() if made},
        {plan.names[key]: reason for key, reason in failed.items()},
        tuple(dict.fromkeys(task for task, *_ in plan.cells)),
    )


def _make(
    step: Step, results: Results, limits: Limits, budget: str | None, name: str, worker: str
) -> None:
    """Make a step, in a worker process; an error that is not ours is logged whole, and told shortly."""
    lab = Local(
        results,
        limits=limits,
        budget=_budget(budget) if budget else None,
        progress=lambda what, done, total: tell(worker, f"{name}: {what}", done, total),
    )
    try:
        lab.do(step)
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
