"""What Inspect finds through the ``inspect_ai`` entry point."""

from cowest_bench.evaluate import _SampleCounter
from cowest_bench.models import HFLMProvider
from cowest_bench.scorers import gold_logprob, task_metric
from cowest_bench.systems import collaborate, solo

__all__ = [
    "HFLMProvider",
    "_SampleCounter",
    "collaborate",
    "gold_logprob",
    "solo",
    "task_metric",
]
