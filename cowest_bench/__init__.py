"""cowest-bench: evaluate weak-strong collaboration of language models.

The Python door: nouns and verbs are imported when first used, so importing the package is instant.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cowest_bench.config import ModelSpec, Pairing, Price
    from cowest_bench.errors import CowestError
    from cowest_bench.lab.evaluate import evaluate
    from cowest_bench.lab.feedback import influence, preference_pairs
    from cowest_bench.lab.train import DPOSettings, Lora, SFTSettings, dpo, sft
    from cowest_bench.method import Method, cowest, preference_rows
    from cowest_bench.report.results import summarise
    from cowest_bench.store import Results, Run, SampleScore
    from cowest_bench.tasks import Task, list_tasks, load_task, validate_task

__version__ = version("cowest-bench")

_HOME = {
    "CowestError": "errors",
    "DPOSettings": "train",
    "Lora": "train",
    "Method": "method",
    "ModelSpec": "config",
    "Pairing": "config",
    "Price": "config",
    "Results": "records",
    "Run": "records",
    "SFTSettings": "train",
    "SampleScore": "records",
    "Task": "tasks",
    "cowest": "method",
    "dpo": "train",
    "evaluate": "evaluate",
    "influence": "feedback",
    "list_tasks": "tasks",
    "load_task": "tasks",
    "preference_pairs": "feedback",
    "preference_rows": "method",
    "sft": "train",
    "summarise": "report",
    "validate_task": "tasks",
}

__all__ = [
    "CowestError",
    "DPOSettings",
    "Lora",
    "Method",
    "ModelSpec",
    "Pairing",
    "Price",
    "Results",
    "Run",
    "SFTSettings",
    "SampleScore",
    "Task",
    "__version__",
    "cowest",
    "dpo",
    "evaluate",
    "influence",
    "list_tasks",
    "load_task",
    "preference_pairs",
    "preference_rows",
    "sft",
    "summarise",
    "validate_task",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


class _Package(ModuleType):
    """``evaluate`` is the verb, also after the module of the same name has been imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
