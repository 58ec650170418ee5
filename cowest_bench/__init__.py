"""cowest-bench: evaluate weak-strong collaboration of language models.

The nouns and verbs of the Python interface; each is imported when it is first used, so that importing
the package is instant.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cowest_bench.analysis.feedback import influence, preference_pairs
    from cowest_bench.config import Asking, Limits, ModelSpec, Pairing, Price
    from cowest_bench.errors import CowestError
    from cowest_bench.lab.local import Local
    from cowest_bench.lab.planned import Planned
    from cowest_bench.lab.training import DPOSettings, Lora, SFTSettings
    from cowest_bench.method import Method, cowest
    from cowest_bench.report.results import summarise
    from cowest_bench.store import Results, Run, SampleScore
    from cowest_bench.systems import System, find_system
    from cowest_bench.tasks import Task, list_tasks, load_task, validate_task

__version__ = version("cowest-bench")

_NAMES = {
    "analysis.feedback": ("influence", "preference_pairs"),
    "config": ("Asking", "Limits", "ModelSpec", "Pairing", "Price"),
    "errors": ("CowestError",),
    "lab.local": ("Local",),
    "lab.planned": ("Planned",),
    "lab.training": ("DPOSettings", "Lora", "SFTSettings"),
    "method": ("Method", "cowest"),
    "report.results": ("summarise",),
    "store": ("Results", "Run", "SampleScore"),
    "systems": ("System", "find_system"),
    "tasks": ("Task", "list_tasks", "load_task", "validate_task"),
}

__all__ = [
    "Asking",
    "CowestError",
    "DPOSettings",
    "Limits",
    "Local",
    "Lora",
    "Method",
    "ModelSpec",
    "Pairing",
    "Planned",
    "Price",
    "Results",
    "Run",
    "SFTSettings",
    "SampleScore",
    "System",
    "Task",
    "__version__",
    "cowest",
    "find_system",
    "influence",
    "list_tasks",
    "load_task",
    "preference_pairs",
    "summarise",
    "validate_task",
]


def __getattr__(name: str) -> object:
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
