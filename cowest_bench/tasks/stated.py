"""A task whose data cannot be loaded now, as its file describes it: enough for a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cowest_bench.errors import TaskError
from cowest_bench.store import content_hash
from cowest_bench.tasks.loading import read_task_file
from cowest_bench.tasks.task import BYTES_PER_TOKEN, Metadata, Split, Task


class StatedTask(Task):
    """A task known from its file alone: sizes and lengths, but no samples.

    Its ids are those of no stored run, so that a plan made from it subtracts nothing.
    """

    def __init__(
        self, name: str, split: Split, options: Mapping[str, Any], meta: Metadata, generation: Any
    ) -> None:
        self.name = name
        self.split = split
        self.options = dict(options)
        self.meta = meta
        self.generation = dict(generation)
        self.limit = self.options.get("limit")
        self._turns = {"apply_chat_template": True}
        self.size = min(self.limit or meta.sizes[split], meta.sizes[split])
        self.prompt_bytes = (meta.prompt_tokens or 0.0) * BYTES_PER_TOKEN
        known = content_hash(["stated", name, split, self.options])
        self.questions_id = self.gold_id = self.data_id = self.sft_id = known
        self.scoring = {}
        self.repeats = 1

    def on(self, split: Split) -> StatedTask:
        """The same task on another split; arguments and errors as for ``stated_task``."""
        return stated_task(self.name, split, self.options)

    @property
    def samples(self) -> list[Any]:
        """Always raises ``TaskError``."""
        raise TaskError(f"The data of task {self.name} cannot be loaded now.")


def stated_task(name: str, split: Split, options: Mapping[str, Any]) -> StatedTask:
    """The task that a file describes.

    Raises:
        TaskError: If the file does not state the split's size and the prompts' length.
    """
    meta, generation = read_task_file(name, options.get("include_path"))
    if split not in meta.sizes or meta.prompt_tokens is None:
        raise TaskError(
            f"The data of task {name} cannot be loaded, and its file does not state the size of the "
            f"{split} split; give the data with --data DIR."
        )
    return StatedTask(name, split, options, meta, generation)
