"""The door of Inspect, loaded by its entry point: tasks, and by import all solvers, scorers and models.

    inspect eval cowest_bench/medical --model-role weak=hflm/DIR --model-role strong=openai-api/x/y
    inspect eval cowest_bench/medical -T split=dev -T num_fewshot=3 -T limit=100 ...
    inspect eval cowest_bench/task -T name=gsm8k ...                      any task of lm-eval
    ... --solver cowest_bench/collaborate -S format=knowledge             another interaction format
    ... --solver cowest_bench/solo -S role=strong                         one model alone

Samples, prompts, answers and scores are those of ``cowest run``. If a sample fails, the others are
still asked and then the whole evaluation counts as failed, because the engine would drop the sample
from the mean; ``inspect eval-retry LOG`` asks what has no score. Retries and timeouts are options of
``inspect eval``.
"""

from __future__ import annotations

from typing import Any

from inspect_ai import Task as InspectTask
from inspect_ai import task
from inspect_ai.dataset import MemoryDataset

from cowest_bench.lab.samples import inspect_samples
from cowest_bench.lab.scorers import task_metric
from cowest_bench.systems.solvers import collaborate
from cowest_bench.tasks import Split, load_task


@task
def medical(split: Split = "test", **options: Any) -> InspectTask:
    """MedMCQA: medical entrance examinations."""
    return inspect_task("cowest_medmcqa", split, **options)


@task
def counterfactual(split: Split = "test", **options: Any) -> InspectTask:
    """IfQA: questions about what would be, if something were otherwise."""
    return inspect_task("cowest_ifqa", split, **options)


@task
def ethics(split: Split = "test", **options: Any) -> InspectTask:
    """ProsocialDialog: how much caution what someone says asks for."""
    return inspect_task("cowest_prosocial_dialog", split, **options)


@task(name="task")
def any_task(name: str, split: Split = "test", **options: Any) -> InspectTask:
    """Any generate_until task of lm-eval, by its name there."""
    return inspect_task(name, split, **options)


def inspect_task(name: str, split: Split = "test", **options: Any) -> InspectTask:
    """A task on one of its splits, as Inspect runs it; arguments and errors as for ``load_task``."""
    loaded = load_task(name, split, **options)
    return InspectTask(
        display_name=loaded.name,
        dataset=MemoryDataset(inspect_samples(loaded), name=f"{loaded.name} {split}"),
        solver=collaborate(),
        scorer=task_metric(loaded.name, split, loaded.options),
        version=str(loaded.meta.version),
        fail_on_error=True,
        continue_on_fail=True,
    )
