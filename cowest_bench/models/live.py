"""A model that is being trained, lent for an evaluation in between. It imports torch: import it late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig, AutoTokenizer

from cowest_bench.config import ModelSpec
from cowest_bench.models.hflm import SeededHFLM, quiet
from cowest_bench.models.identity import pinned
from cowest_bench.models.memory import BATCH_SIZE, MEMORY, Weights

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig


@contextmanager
def lent(spec: ModelSpec, model: PeftModel, generation: GenerationConfig) -> Iterator[None]:
    """Have whoever opens a checkpoint use the model under training, not a second copy of its base.

    The model answers as a fresh load of the checkpoint does, to the last bit. Afterwards it is as before.

    Args:
        spec: The checkpoint: the base with the adapter as it was just saved; or the base alone, before
            the first step, when the adapter changes nothing.
        model: The base with the adapter under training.
        generation: The generation config that came with the base; trainers change the model's own.
    """
    spec = pinned(spec)
    with _as_opened(spec, model, generation):
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                spec.path, revision=spec.revision, trust_remote_code=spec.remote_code
            )
            lm = SeededHFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE)
        with MEMORY.lend(Weights.of(spec), lm):
            yield


@contextmanager
def _as_opened(spec: ModelSpec, model: PeftModel, generation: GenerationConfig) -> Iterator[None]:
    """Undo what training changed in a model, for as long as it is lent."""
    with ExitStack() as restored:

        def change(thing: object, name: str, value: object) -> None:
            restored.callback(setattr, thing, name, getattr(thing, name))
            setattr(thing, name, value)

        for module in model.modules():
            change(module, "training", False)
            if getattr(module, "gradient_checkpointing", False):
                change(module, "gradient_checkpointing", False)
        change(model.get_base_model(), "generation_config", generation)
        if "_original_forward" in vars(model):  # accelerate's, which computes in mixed precision
            restored.callback(setattr, model, "forward", vars(model).pop("forward"))
        dtype = _opened_dtype(spec)
        for weight in model.parameters():
            if not weight.requires_grad and weight.is_floating_point() and weight.dtype != dtype:
                restored.callback(_cast(weight, dtype))
        yield


def _opened_dtype(spec: ModelSpec) -> torch.dtype:
    """The number format in which lm-eval loads the base."""
    name: str | torch.dtype | None = spec.dtype
    if name == "auto":
        config = AutoConfig.from_pretrained(
            spec.path, revision=spec.revision, trust_remote_code=spec.remote_code
        )
        name = config.dtype
    dtype = getattr(torch, name) if isinstance(name, str) else name or torch.float32
    assert isinstance(dtype, torch.dtype)
    return dtype


def _cast(weight: torch.nn.Parameter, dtype: torch.dtype) -> Callable[[], None]:
    """Cast a frozen weight; returns what casts it back.

    Training in float32 what is stored in bfloat16 loses nothing on the way back. Otherwise the weight
    itself is kept as well.
    """
    trained = weight.data
    weight.data = trained.to(dtype)
    exact = torch.equal(weight.data.to(trained.dtype), trained)
    kept, before = None if exact else trained, trained.dtype

    def restore() -> None:
        weight.data = weight.data.to(before) if kept is None else kept

    return restore
