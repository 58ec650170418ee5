"""Short ways to do single steps in tests."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cowest_bench.config import Asking
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.local import Local
from cowest_bench.lab.step import Model
from cowest_bench.store import Results, Run
from cowest_bench.systems import find_system
from cowest_bench.tasks import Task


def cell(
    task: Task,
    system: str,
    *,
    weak: Model | None = None,
    strong: Model | None = None,
    epochs: int = 1,
    graded: bool = False,
    control: str | None = None,
    **asking: Any,
) -> Evaluate:
    """An evaluation; ``asking`` are fields of ``Asking``."""
    given: dict[Any, Model] = {}
    given |= {"weak": weak} if weak else {}
    given |= {"strong": strong} if strong else {}
    return Evaluate(task, find_system(system), given, Asking(**asking), epochs, graded, control)


def evaluate(task: Task, system: str, *, results: Results, **given: Any) -> Run:
    """The run of an evaluation, made by a new lab; ``given`` is for the lab or for ``cell``."""
    lab = Local(
        results, **{key: given.pop(key) for key in ("limits", "budget", "progress") if key in given}
    )
    step = cell(task, system, **given)
    step.check()
    run = lab.do(step).run(results)
    assert run is not None
    return run


def calls_made(results: Results, roles: Collection[str]) -> dict[str, int]:
    """The calls that the rows of all runs record, by role."""
    rows = [row for run in results.all_runs() for row in results.samples(run)]
    return {role: sum(getattr(row, f"{role}_calls") for row in rows) for role in roles}
