"""What Inspect finds through the ``inspect_ai`` entry point."""

from cowest_bench.models import hflm
from cowest_bench.scorers import gold_logprob, task_metric
from cowest_bench.systems import collaborate, solo

__all__ = [
    "collaborate",
    "gold_logprob",
    "hflm",
    "solo",
    "task_metric",
]
