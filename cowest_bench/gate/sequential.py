"""Evaluate a candidate only as far as it takes to decide against a baseline.

The samples are asked in five parts, in the order in which a sequential check looks at them
(``check.in_order``), and none is asked once a look has decided. Samples that were not asked have rows
that say so; the same plan without a baseline asks them later. ``cowest check --sequential`` on the
stored run finds the same verdict at the same look.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cowest_bench.analysis import contrasts
from cowest_bench.config import Progress
from cowest_bench.errors import ComparisonError, ConfigError
from cowest_bench.gate import check
from cowest_bench.gate.baseline import Baseline, item_key, scored
from cowest_bench.gate.check import LOOKS, Looked, Settings
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.local import Local
from cowest_bench.models.budget import Budget
from cowest_bench.plan import Plan, planned
from cowest_bench.store import Results, Run


def until_decided(
    plan: Plan,
    results: Results,
    baseline: Baseline,
    settings: Settings,
    progress: Callable[[str], Progress] | None = None,
) -> tuple[list[Run], Looked]:
    """Run a plan of one system until a look decides; returns its runs and how far it went.

    ``progress`` returns, for a task's domain, what is called with how far it is.

    Raises:
        ConfigError: If the plan has several systems, or a method.
        ComparisonError: If a task has no run of the same data in the baseline, or the baseline a run
            that no task has.
        CowestError: See ``evaluate``.
    """
    if len(plan.systems) != 1 or plan.method is not None:
        raise ConfigError(
            "Only one system, with the models as they are, can be run against a baseline; give one "
            "with --systems NAME, and tune before."
        )
    cells = [step for step in planned(plan).steps.values() if isinstance(step, Evaluate)]
    known = {run.data: run for run in baseline.runs}
    if {cell.task.data_id for cell in cells} != known.keys():
        has = ", ".join(f"{run.domain} {run.data}" for run in baseline.runs)
        wanted = ", ".join(f"{cell.task.name} {cell.task.data_id}" for cell in cells)
        raise ComparisonError(
            f"The baseline {baseline.name} is of {has}, and this would ask {wanted}: these are not the "
            "same samples. Run the same tasks, split, seed, limit and examples, or bless a new one."
        )
    blessed = [known[cell.task.data_id] for cell in cells]
    # Each run with itself: which samples there are, before any is answered.
    samples, part = check.pooled(
        [(run.domain, contrasts.pair(run.items, run.items)) for run in blessed]
    )
    budget = Budget.parse(plan.budget) if plan.budget else None  # of all cells together
    labs = [
        Local(
            results, limits=plan.limits, budget=budget, progress=progress and progress(run.domain)
        )
        for run in blessed
    ]
    for look, seen in enumerate(check.looks_of(samples), 1):
        keys = set(samples.keys[seen].tolist())
        runs = [
            lab.do_part(cell, {s.id for s in cell.task.samples if item_key(run.data, s.id) in keys})
            for lab, cell, run in zip(labs, cells, blessed, strict=True)
        ]
        parts = check.paired([scored(results, run) for run in runs], blessed)
        if check.first_decided(parts, settings, looks=look):
            break
    left = np.bincount(part) - np.bincount(part[seen], minlength=len(cells))
    calls = [sum(cell.calls(cell.epochs).values()) for cell in cells]  # for one sample
    return runs, Looked(look, LOOKS, len(seen), len(part), int(left @ calls))
