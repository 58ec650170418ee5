"""Sweeps: every weak model with every strong one on every task, each shared step made once.

    tasks: [cowest_medmcqa, cowest_ifqa]
    weak: [hf/ORG/SMALL, hf/ORG/SMALLER]
    strong: [{name: openai/gpt-4o, price: {input: 2.5, output: 10}}, hf/ORG/LARGE]
    systems: [weak, strong, collab]

A sweep is the plans of all its pairings, carried out by one ``Planned`` lab: a step that several
pairings need has one id, and is there once. Processes then make the steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError
from cowest_bench.lab import workers
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.planned import Planned
from cowest_bench.lab.processes import default_size, do_steps
from cowest_bench.plan import BasePlan, Plan, evaluations
from cowest_bench.store import Results, Run

Cell = tuple[str, int | None, int | None, str]  # task, places of the weak and strong model, system


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
        single = [name for system in sweep.found_systems for name in system.compared_with]
        missing = [name for name in dict.fromkeys(single) if name not in sweep.systems]
        if not sweep.collaborative or missing:
            raise ConfigError(
                "A sweep shows what collaboration gains over each model alone; its systems must be "
                f"{', '.join(missing) or 'weak, strong'}, and at least one in which models collaborate, "
                "such as collab."
            )
        _ = sweep.weak_names, sweep.strong_names
        return sweep

    @property
    def collaborative(self) -> tuple[str, ...]:
        """The systems of which there is one for each pairing."""
        return tuple(system.name for system in self.found_systems if system.compared_with)

    @cached_property
    def weak_names(self) -> tuple[str, ...]:
        """What tells the weak models apart in tables, whatever they are trained to here."""
        return _names("weak", self.weak, [spec.base_label for spec in self.weak])

    @cached_property
    def strong_names(self) -> tuple[str, ...]:
        """What tells the strong models apart in tables."""
        return _names("strong", self.strong, [spec.label for spec in self.strong])

    def pairing(self, weak: int, strong: int) -> Plan:
        """The plan of one pairing, as ``cowest run`` would run it."""
        shared = {name: getattr(self, name) for name in BasePlan.model_fields}
        return Plan(**shared, weak=self.weak[weak], strong=self.strong[strong])

    def places(self) -> Iterator[tuple[int, int]]:
        """The places of every pairing's models, so that a strong model is kept as long as possible."""
        return ((i, j) for j in range(len(self.strong)) for i in range(len(self.weak)))


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


@dataclass
class SweepPlan:
    """The steps of a sweep."""

    lab: Planned
    cells: dict[Cell, Evaluate] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def planned(sweep: Sweep, *, stated: bool = False) -> SweepPlan:
    """Every step of a sweep, none of them made; arguments and errors as for ``plan.planned``."""
    found = SweepPlan(Planned(offline=stated))
    for i, j in sweep.places():
        plan = sweep.pairing(i, j)
        pairing = f"{sweep.weak_names[i]} + {sweep.strong_names[j]}"
        for task in plan.loaded(stated=stated):
            for step in evaluations(plan, task, found.lab):
                roles = step.system.roles
                place = (i if "weak" in roles else None, j if "strong" in roles else None)
                found.cells[task.name, *place, step.system.name] = step
            for key, made in found.lab.steps.items():
                roles = tuple(made.models) or ("weak", "strong")
                names = {"weak": sweep.weak_names[i], "strong": sweep.strong_names[j]}
                told = pairing if len(roles) > 1 else names.get(roles[0], roles[0])
                found.names.setdefault(key, f"{told} on {task.name}: {made.about}")
    return found


@dataclass(frozen=True)
class Swept:
    """What has become of a sweep."""

    found: dict[Cell, Run]
    failed: dict[str, str]
    tasks: tuple[str, ...]


def run(
    sweep: Sweep,
    results: Results,
    size: int | None = None,
    progress: workers.WorkerProgress | None = None,
) -> Swept:
    """Make what of a sweep is not stored yet.

    Args:
        sweep: What to run.
        results: Where everything is stored.
        size: How many processes; see ``default_size``.
        progress: Told what each of them does, and how many steps are begun.

    Raises:
        ConfigError: If a budget is to hold for several processes.
        CowestError: If a step is known to fail.
    """
    if sweep.budget and (size or 1) > 1:
        raise ConfigError("A budget is held by one process; leave out --workers, or --budget.")
    steps = planned(sweep)
    failed = do_steps(
        steps.lab.steps,
        steps.names,
        results,
        size=size or default_size(steps.lab.steps, sweep.budget),
        threads=sweep.threads,
        limits=sweep.limits,
        budget=sweep.budget,
        progress=progress,
    )
    found = {cell: step.run(results) for cell, step in steps.cells.items()}
    return Swept(
        {cell: made for cell, made in found.items() if made},
        {steps.names[key]: reason for key, reason in failed.items()},
        tuple(dict.fromkeys(task for task, *_ in steps.cells)),
    )
