"""Steps in several processes of this machine, each as soon as what it needs is made."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from functools import cache, partial
from typing import TypeVar

from cowest_bench.config import Limits
from cowest_bench.errors import CowestError, RunError, redacted
from cowest_bench.lab import workers
from cowest_bench.lab.local import Local
from cowest_bench.lab.step import Step, origin_of
from cowest_bench.models.budget import Budget
from cowest_bench.store import Results

REASON_LENGTH = 300  # characters of an error that is not ours; the workers' log has all of it

S = TypeVar("S", bound=Step)


def do_steps(
    steps: Mapping[str, Step],
    names: Mapping[str, str],
    results: Results,
    *,
    size: int,
    threads: int | None = None,
    limits: Limits | None = None,
    budget: str | None = None,
    environment: Mapping[str, str] | None = None,
    progress: workers.WorkerProgress | None = None,
) -> dict[str, str]:
    """Make the steps that are not made yet; returns why some are not, by the step's id.

    Args:
        steps: By id, each after its inputs.
        names: What each is called.
        results: Where everything is stored.
        size: How many processes.
        threads: That each computes on; by default they share the cores. Sums of floats depend on it.
        limits: How long to wait for endpoints.
        budget: What may be spent, by the one process that there is then.
        environment: Variables for the workers.
        progress: Told what each worker does, and how many steps are begun.
    """
    todo = {key: step for key, step in steps.items() if not step.is_made(results)}
    jobs = [
        workers.Job(
            key,
            names[key],
            partial(work, step, results, limits, budget, names[key]),
            frozenset(each.id for each in step.inputs if each.id in todo),
        )
        for key, step in todo.items()
    ]
    if not jobs:
        return {}
    size = min(size, len(jobs))
    return workers.do_jobs(
        jobs,
        size,
        restart=budget is None,  # another process would not know what was spent
        progress=progress,
        threads=threads or max(1, cores() // size),
        log=results.logs / "workers.log",
        environment=environment,
    )


def work(
    step: Step, results: Results, limits: Limits | None, budget: str | None, name: str, who: str
) -> None:
    """Make a step, in a worker process.

    Raises:
        CowestError: Whatever went wrong, as a sentence; what is not ours is printed as well.
    """

    def progress(what: str, done: int, total: int) -> None:
        workers.tell(who, f"{name}: {what}", done, total)

    lab = Local(
        results, limits=limits, budget=_budget(budget) if budget else None, progress=progress
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


def default_size(steps: Mapping[str, Step], budget: str | None) -> int:
    """How many processes to use unless a number is given.

    One with a budget, which one process holds; one if nothing is computed here, since an evaluation
    asks endpoints concurrently by itself; one with an accelerator, which would have to hold every
    model several times. Otherwise one for each core.
    """
    local = any(
        origin_of(each).is_local for step in steps.values() for each in step.models.values()
    )
    if budget or not local:
        return 1
    import torch

    return 1 if torch.accelerator.is_available() else cores()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
