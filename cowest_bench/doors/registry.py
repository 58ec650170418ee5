"""What Inspect finds through the ``inspect_ai`` entry point."""

from cowest_bench.doors.inspect import any_task, counterfactual, ethics, medical
from cowest_bench.lab.scorers import gold_logprob, task_metric
from cowest_bench.models.local import hflm
from cowest_bench.systems.solvers import answer_with, collaborate, solo

__all__ = [
    "answer_with",
    "any_task",
    "collaborate",
    "counterfactual",
    "ethics",
    "gold_logprob",
    "hflm",
    "medical",
    "solo",
    "task_metric",
]
