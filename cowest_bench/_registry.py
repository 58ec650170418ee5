"""What Inspect finds through the ``inspect_ai`` entry point."""

from cowest_bench.inspect_tasks import any_task, counterfactual, ethics, medical
from cowest_bench.models import hflm
from cowest_bench.scorers import gold_logprob, task_metric
from cowest_bench.systems import collaborate, solo

__all__ = [
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
