"""A task's samples as samples of the engine: what the solvers read, and the gold answer for scorers alone.

Every door builds its samples here (``cowest run``, ``inspect eval`` and ``lm_eval``), so that the same
sample is asked in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

from cowest_bench.models.local import PLAIN
from cowest_bench.tasks import Message, Metadata, Task

_MESSAGES: dict[str, Callable[..., ChatMessage]] = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
}


def conversation(messages: list[Message], *, plain: bool = False) -> list[ChatMessage]:
    """Messages as the engine has them; ``plain`` marks text that local models get as it stands."""
    mark = {"metadata": {PLAIN: True}} if plain else {}
    return [_MESSAGES[m["role"]](content=m["content"], **mark) for m in messages]


def settings(
    meta: Metadata,
    generation: Mapping[str, Any],
    repeats: int = 1,
    formats: Collection[str] | None = None,
) -> dict[str, Any]:
    """What the solvers read in a sample's metadata."""
    known = meta.prompts_by_format
    return {
        "generation": dict(generation),
        "repeats": repeats,
        "draft_tokens": meta.draft_tokens,
        "prompts": {
            format: prompts.model_dump()
            for format, prompts in known.items()
            if formats is None or format in formats
        },
    }


def inspect_samples(task: Task) -> list[Sample]:
    """The samples of a task's split, with their accepted answers."""
    common = settings(task.meta, task.generation, task.repeats)
    return [
        Sample(
            id=sample.id,
            input=conversation(sample.messages, plain=task.plain),
            target=list(sample.accepted),
            metadata=common,
        )
        for sample in task.samples
    ]
